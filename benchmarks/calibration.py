"""What calibration does to the demo classifier and to guidance by it: `python -m benchmarks.calibration`.

Four objectives, three seeds each, fine-tuned as the node does it: on the bundled folder of pictures, finished and as the
demo model sees them at a quarter, half and three quarters of the sampling. Measured on 1,000 new pictures at the same
shares. Then guidance by each objective's first classifier, drawn and measured as in benchmarks.classifier_guidance, and the time
of a training step. Two hours on two cores; what is finished is kept in `.dev/benchmarks`.
"""

import argparse
import csv
import time
from dataclasses import dataclass
from functools import cached_property
from random import Random
from statistics import mean, median, stdev

import torch

from demo.train_classifier import batch_of

from . import in_process, results
from .classifier_guidance import REAL, pool, rows_of
from .guided_bench import BATCH, CLEAN, Setting, classifier, demo
from .guided_bench import FINE_TUNED as FOLDER
from .guided_measures import real
from .in_process import pack_module

PERCENTS = (0.25, 0.5, 0.75, 1.0)
TRAINING = {"steps": 300, "learning_rate": 3e-4, "batch_size": 16}
OBJECTIVES = {
    "CE": {},
    "CE + printed form": {"ece_weight": 1.0},
    "CE + per-bin form": {"ece_weight": 1.0, "ece_form": "per_bin"},
    "entropy-aware": {"entropy_weight": 0.2},
}
AS_IT_CAME = "as it came"
SEEDS = (0, 1, 2)
TEST = 1000  # pictures that are measured on
SCALE = 0.2  # what benchmarks.classifier_guidance found best for guidance by the classifier as it came


@dataclass(frozen=True)
class Drawn:
    """Pictures that are nowhere on disk, in the place of a folder's."""

    pictures: torch.Tensor
    labels: list[int]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return self.pictures[index], self.labels[index]


def name_of(objective: str, seed: int) -> str:
    """As guided_bench.py knows classifiers."""
    return CLEAN if objective == AS_IT_CAME else f"{objective}-{seed}"


class Calibrations:
    """Classifiers by objective and seed, trained where they are not there yet."""

    def __init__(self):
        self.clean = classifier(CLEAN)
        view = pack_module("nodes.calibration.guidance_view").guidance_view
        self.view = view(self.clean, *demo(), "full")

    @cached_property
    def folder(self):
        return pack_module("nodes.calibration.image_folder").open_folder("entropy-guidance-demo", self.clean, 128)

    @cached_property
    def test(self):
        pictures, labels = batch_of(Random("calibration test"), TEST)
        return self._views(Drawn(pictures, labels.tolist()))

    @cached_property
    def held_out(self):
        return self._views(self.folder.held_out)

    def _views(self, pictures, seed: str = "measured"):
        percents = ", ".join(map(str, PERCENTS[:-1]))
        return pack_module("nodes.calibration.example_views").example_views(
            self.view, pictures, percents, self.clean.patcher.load_device, seed
        )

    def train(self, seed: int) -> None:
        """All objectives on the same views."""
        missing = [objective for objective in OBJECTIVES if not (FOLDER / name_of(objective, seed)).exists()]
        examples = self._views(self.folder.training, f"training {seed}")
        for objective in missing:
            self._train(objective, seed, examples)

    def _train(self, objective: str, seed: int, examples) -> None:
        formula = pack_module("guidance_core.calibration_objective").CalibrationObjective(**OBJECTIVES[objective])
        wing = pack_module("nodes.calibration.fine_tuning")
        training = wing.Training(formula, **TRAINING, seed=seed)
        module, tuning = wing.fine_tune(self.clean, training, examples, self.held_out)
        print(f"{objective}, seed {seed}: best step {tuning.best_step}. {tuning.stopped}", flush=True)
        module.save(FOLDER / name_of(objective, seed), self.clean.labels, training.settings)

    def measure(self, objective: str, seed: int) -> dict[str, float]:
        """Means over the shares of the sampling, and each share's own."""
        errors = pack_module("nodes.calibration.measurement").measure(classifier(name_of(objective, seed)), self.test)
        row = {}
        for key in ("accuracy", "confidence", "ece", "smooth_ece", "interval"):
            values = {percent: getattr(error, key) for percent, error in errors.items()}
            row |= {key: mean(values.values())} | {f"{key} {percent:.0%}": value for percent, value in values.items()}
        return row


def kept(name: str, row_of: dict, make) -> dict:
    """A row of a file of results, made where it is not there yet."""
    path = FOLDER / f"{name}.csv"
    rows = list(csv.DictReader(path.open(newline=""))) if path.exists() else []
    keys = {key: str(value) for key, value in row_of.items()}
    found = next((row for row in rows if keys.items() <= row.items()), None)
    if found is None:
        found = {**keys, **make()}
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, found)
            if not rows:
                writer.writeheader()
            writer.writerow(found)
    return {key: value if key in keys else float(value) for key, value in found.items()}


def measure_calibration(calibrations: Calibrations) -> dict[str, dict]:
    print(f"\nOn {TEST} new pictures, mean of {len(PERCENTS)} shares of the sampling; three seeds, ± their deviation")
    found: dict[str, dict] = {}
    for objective in (AS_IT_CAME, *OBJECTIVES):
        seeds = SEEDS if objective in OBJECTIVES else (0,)
        rows = [
            kept("errors", {"objective": objective, "seed": s}, lambda o=objective, s=s: calibrations.measure(o, s))
            for s in seeds
        ]
        found[objective] = {
            key: _spread([row[key] for row in rows]) for key in rows[0] if key not in ("objective", "seed")
        }
        for percent in ("", *(f" {percent:.0%}" for percent in PERCENTS)):
            spreads = ((key, found[objective][key + percent]) for key in ("accuracy", "ece", "smooth_ece"))
            cells = (f"{key} {s['value']:.3f} ± {s.get('deviation', 0):.3f}" for key, s in spreads)
            print(f"{objective:20}{percent or 'mean':6}", "  ".join(cells), flush=True)
    return found


def _spread(values: list[float]) -> dict[str, float]:
    return {"value": mean(values)} | ({"deviation": stdev(values)} if len(values) > 1 else {})


def measure_guidance(batches: int, workers: int) -> dict[str, dict]:
    """By each objective's first classifier, and how far that is from guidance by the classifier as it came."""
    settings = {name: Setting(SCALE, classifier=name_of(name, SEEDS[0])) for name in (AS_IT_CAME, *OBJECTIVES)}
    with pool(workers) as processes:
        return rows_of(settings, batches, real(REAL), AS_IT_CAME, processes)


def measure_step_time(calibrations: Calibrations) -> dict[str, dict[str, float]]:
    """Objectives in turn in one run, on views that are there already: ms, and times that of CE."""
    objective = pack_module("guidance_core.calibration_objective").CalibrationObjective
    inputs, labels = calibrations.test.batch(range(TRAINING["batch_size"]))
    with torch.inference_mode(False), torch.enable_grad():
        module = calibrations.clean.trainable_copy()
        optimizer = torch.optim.AdamW(module.parameters(), 1e-9)
        seconds: dict[str, list[float]] = {name: [] for name in OBJECTIVES}
        for _ in range(20):
            for name, weights in OBJECTIVES.items():
                start = time.perf_counter()
                optimizer.zero_grad(set_to_none=True)
                objective(**weights)(module(*inputs), labels).backward()
                optimizer.step()
                seconds[name].append(time.perf_counter() - start)
    ms = {name: 1000 * median(values) for name, values in seconds.items()}
    print("\nA training step, 16 pictures, median of 20")
    for name, time_of_one in ms.items():
        print(f"{name:20}{time_of_one:8.1f} ms  {time_of_one / ms['CE']:.3f} × CE")
    return {name: {"ms": time_of_one, "ratio": time_of_one / ms["CE"]} for name, time_of_one in ms.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=17, help=f"of {BATCH} pictures, with each one's guidance")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each, for these")
    options = parser.parse_args()
    in_process.load_nodes()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        calibrations = Calibrations()
        for seed in SEEDS:
            calibrations.train(seed)
        found = {
            "training": TRAINING, "pictures": TEST, "guided pictures": options.batches * BATCH, "scale": SCALE,
            "rows": measure_calibration(calibrations),
            "guidance": measure_guidance(options.batches, options.workers),
            "step time": measure_step_time(calibrations),
        }  # fmt: skip
    results.write("calibration", found)


if __name__ == "__main__":
    main()
