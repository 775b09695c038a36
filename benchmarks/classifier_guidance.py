"""What classifier guidance does to the demo model: `python -m benchmarks.classifier_guidance`.

Pictures without a prompt, steered to the colour of their largest shape, the colours in turn, all methods from the same noise.
Each method first tries its scales on a few pictures; the one with the lowest joint Fréchet distance is then measured on others.
Differences are from ma2023. Three hours on two cores; batches are kept in `.dev/benchmarks`: an interrupted run goes on, and
one of more pictures adds to what is there. Writes docs/results/classifier_guidance.json.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

import numpy as np

from demo.train_classifier import CLASSES

from . import in_process, results
from .earlier_scores import MA2023, PLAIN
from .guided_bench import BATCH, CLEAN, EVERY, NOISE_AWARE, STEPS, TEST, TRIAL, Setting, classifier, run, seen, start
from .guided_measures import Seen, measures, real
from .jackknife import compared

REAL = 2000
BASELINE = "ma2023"
SCALES = (0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True)
class Method:
    """score, guidance: as in a Setting. scales: that are tried. noise_aware: by the noise-aware classifier.

    paper: Fréchet distance relative to ma2023 in arXiv 2511.05844, on ImageNet at 128 pixels; where the paper gives
    50,000 samples guided by a ResNet-101 those, otherwise 10,000 by a ResNet-50.
    """

    score: dict = field(default_factory=lambda: MA2023)
    guidance: dict = field(default_factory=dict)
    scales: tuple[float, ...] = SCALES
    noise_aware: bool = False
    paper: float | None = None

    @property
    def settings(self) -> list[Setting]:
        classifier = NOISE_AWARE if self.noise_aware else CLEAN
        return [Setting(scale, self.score, self.guidance, classifier) for scale in self.scales]


METHODS = {
    "no guidance": Method(scales=(0.0,)),
    "Dhariwal": Method(PLAIN, {"normalize": False}, (0.5, 1.0, 2.0, 4.0), noise_aware=True, paper=2.97 / 2.19),
    "ma2023": Method(paper=1.0),
    "tilted": Method(guidance={"tilt": -0.2}, paper=5.28 / 5.34),
    "entropy": Method({**MA2023, "entropy_weight": 0.2}, paper=5.30 / 5.34),
    "reverse KL": Method({**MA2023, "divergence": "reverse_kl"}, paper=2.14 / 2.19),
    "forward KL": Method({**MA2023, "divergence": "forward_kl"}, paper=2.17 / 2.19),
    "Jensen-Shannon": Method({**MA2023, "divergence": "jensen_shannon"}, paper=2.13 / 2.19),
}


def best_scales(batches: int, real: Seen, workers: ProcessPoolExecutor) -> tuple[dict[str, dict], dict[str, Setting]]:
    """For each method the measures at its scales, and the setting with the lowest joint distance."""
    run([setting for method in METHODS.values() for setting in method.settings], TRIAL, batches, workers, "trials")
    tried, chosen = {}, {}
    for name, method in METHODS.items():
        rows = [measures(real, seen(s, TRIAL, batches))(np.arange(batches * BATCH)) for s in method.settings]
        tried[name] = {f"{scale:g}": row for scale, row in zip(method.scales, rows)}
        chosen[name] = min(zip(method.settings, rows), key=lambda of: of[1]["joint"])[0]
    return tried, chosen


def rows_of(
    settings: dict[str, Setting], batches: int, real: Seen, baseline: str, workers: ProcessPoolExecutor
) -> dict[str, dict]:
    """For each setting its scale, its measures and how far they are above the baseline's."""
    run([*settings.values()], TEST, batches, workers, "rows")
    found = compared(
        {name: measures(real, seen(setting, TEST, batches)) for name, setting in settings.items()},
        np.arange(batches * BATCH) // len(CLASSES), baseline,  # a block of the jackknife has all colours
    )  # fmt: skip
    return {name: {"scale": settings[name].scale, **row} for name, row in found.items()}


def pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, get_context("spawn"), start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trial-batches", type=int, default=2, help=f"of {BATCH} pictures, that a scale is tried on")
    parser.add_argument("--batches", type=int, default=17, help="of each row, at the best scale")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    options = parser.parse_args()
    in_process.load_nodes()
    classifier(NOISE_AWARE)  # trained where it is not there, by one process alone
    real_ones = real(REAL)
    with pool(options.workers) as workers:
        tried, chosen = best_scales(options.trial_batches, real_ones, workers)
        rows = rows_of(chosen, options.batches, real_ones, BASELINE, workers)
    found = {
        "sampler": "euler, simple", "steps": STEPS, "every": EVERY, "pictures": options.batches * BATCH, "real": REAL,
        "pictures of a trial": options.trial_batches * BATCH, "tried": tried,
        "rows": {name: {**row, "paper": METHODS[name].paper} for name, row in rows.items()},
    }  # fmt: skip
    results.write("classifier_guidance", found)


if __name__ == "__main__":
    main()
