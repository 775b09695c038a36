"""What each input of Calibrate Classifier does, the others as they come: `python -m benchmarks.calibration_inputs`.

On the class-conditional demo model's classifier of clean pictures and the pictures that this was trained on. Each value is
measured on new pictures, finished and as the model predicts them at a quarter, half and three quarters of the sampling, whatever
`percents` it was trained with. Writes docs/results/calibration_inputs.json and docs/inputs-of-calibration.png and .svg; some forty
minutes on one core for each seed. What was measured is kept in `.dev/benchmarks`.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import torch

from demo.classes.train_classifiers import FEW

from . import in_process, results
from .class_bench import CLEAN, FOLDER, classifier, views
from .class_calibration import of_all_percents
from .in_process import defaults_of, pack_module
from .sensitivity.figures import input_panels

NODE, NODE_NAME = "EntropyGuidanceCalibrate", "Calibrate Classifier"
TEST, HELD_OUT = 1008, 500  # pictures
TEST_SEED, HELD_OUT_SEED = 9, 10  # of no table; 0 is that of the training pictures
MEASURES = ("accuracy", "confidence", "smooth_ece")
KEPT = FOLDER / "calibration_inputs.json"  # what was measured of each training
VALUES = {
    "steps": (100, 200, 400, 800, 1600),
    "learning_rate": (3e-5, 1e-4, 3e-4, 1e-3),
    "batch_size": (4, 16, 64),
    "percents": ("0.5", "0.25, 0.5, 0.75", "0.1, 0.3, 0.5, 0.7, 0.9"),
    "ece_weight": (0.0, 1.0, 4.0),
    "ece_beta": (0.0, 0.001, 0.1),
    "ece_form": ("per_sample", "per_bin"),
    "entropy_weight": (0.0, 0.2, 0.5),
}
OBJECTIVE, TRAINING = ("ece_weight", "ece_beta", "ece_form", "entropy_weight"), ("steps", "learning_rate", "batch_size")
Inputs = dict[str, object]
Measured = dict[str, float]


def measure(seeds: int, quick: bool) -> dict:
    """quick: two values of the first input, with few pictures."""
    tests, few, held_out = (32, 64, 32) if quick else (TEST, FEW, HELD_OUT)
    values = {"steps": (20, 40)} if quick else VALUES
    defaults = {name: value for name, value in defaults_of(NODE).items() if name in VALUES}
    train, test = trainer(few, held_out), views(tests, TEST_SEED)
    kept = {} if quick or not KEPT.exists() else json.loads(KEPT.read_text(encoding="utf-8"))

    def of(inputs: Inputs, seed: int) -> Measured:
        key = json.dumps({**inputs, "seed": seed})
        if key not in kept:
            kept[key] = of_all_percents(train(inputs, seed), test)
            print(key, kept[key], flush=True)
            if not quick:
                KEPT.parent.mkdir(parents=True, exist_ok=True)
                KEPT.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        return kept[key]

    def row(inputs: Inputs) -> dict[str, Measured]:
        """The mean over all seeds, and the lowest and highest of them."""
        found = [of(inputs, seed) for seed in range(seeds)]
        return {name: _spread([one[name] for one in found]) for name in MEASURES}

    as_it_came = of_all_percents(classifier(CLEAN), test)
    return {
        "pictures": tests, "seeds": seeds, "defaults": {name: str(value) for name, value in defaults.items()},
        "as it came": {name: {"value": as_it_came[name]} for name in MEASURES},
        "rows": {
            name: {str(value): row({**defaults, name: value}) for value in tried} for name, tried in values.items()
        },
    }  # fmt: skip


def _spread(values: list[float]) -> Measured:
    return {"value": mean(values), "low": min(values), "high": max(values)}


def trainer(pictures: int, held_out: int) -> Callable[[Inputs, int], object]:
    """What makes a GUIDANCE_CLASSIFIER of the node's inputs and a seed. Trainings with the same `percents` share their views."""
    views_of: dict[str, tuple] = {}

    def train(inputs: Inputs, seed: int):
        percents = inputs["percents"]
        if percents not in views_of:
            views_of[percents] = (views(pictures, 0, percents), views(held_out, HELD_OUT_SEED, percents))
        clean, wing = classifier(CLEAN), pack_module("nodes.calibration.fine_tuning")
        objective = pack_module("guidance_core.calibration_objective").CalibrationObjective
        formula = objective(**{name: inputs[name] for name in OBJECTIVE})
        training = wing.Training(formula, **{name: inputs[name] for name in TRAINING}, seed=seed)
        module, _ = wing.fine_tune(clean, training, *views_of[percents])
        with torch.inference_mode(False):
            return pack_module("nodes.classifiers.guidance_classifier").guidance_classifier(
                "calibrated", module, clean.labels
            )

    return train


def draw(found: dict, folder: Path) -> None:
    """The figure."""

    def named(row: dict) -> dict:
        return {name.replace("_ece", " ECE"): value for name, value in row.items()}

    rows = {NODE_NAME: {name: {value: named(row) for value, row in of.items()} for name, of in found["rows"].items()}}
    measures = tuple(named(dict.fromkeys(MEASURES)))
    trainings = found["seeds"]
    bars = f"the lowest and highest of {trainings} trainings" if trainings > 1 else ""
    input_panels(
        rows, {NODE_NAME: named(found["as it came"])}, {NODE_NAME: found["defaults"]}, measures, bars,
        "inputs-of-calibration", folder, dotted="the classifier as it came",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each value")
    parser.add_argument("--quick", action="store_true", help="two values, of one training each; not into docs")
    options = parser.parse_args()
    in_process.load_nodes()
    with torch.inference_mode():
        found = measure(1 if options.quick else options.seeds, options.quick)
    results.write("calibration_inputs", found, options.quick)
    draw(found, results.folder(options.quick))


if __name__ == "__main__":
    main()
