"""What each input of Calibrate Classifier does, the others as they come: `python -m benchmarks.calibration_inputs`.

On the class-conditional demo model's classifier of clean pictures and the pictures that this was trained on. Each value is trained
with three seeds and measured on new pictures, finished and as the model predicts them at a quarter, half and three quarters of the
sampling, whatever `percents` it was trained with. Writes docs/results/calibration_inputs.json and
docs/inputs-of-calibration.png and .svg; half an hour on two cores.
"""

from collections.abc import Callable
from pathlib import Path
from statistics import mean

import torch

from demo.classes.train_classifiers import FEW

from . import results
from .class_bench import CLEAN, classifier, views
from .class_calibration import of_all_percents
from .in_process import defaults_of, pack_module
from .sensitivity.figures import input_panels

NODE, NODE_NAME = "EntropyGuidanceCalibrate", "Calibrate Classifier"
TEST, HELD_OUT = 1008, 496  # pictures
TEST_SEED, HELD_OUT_SEED = 9, 10  # of no table; 0 is that of the training pictures
MEASURES = ("accuracy", "confidence", "smooth_ece")
VALUES = {
    "steps": (50, 100, 200, 400, 800),
    "learning_rate": (3e-5, 1e-4, 3e-4, 1e-3),
    "batch_size": (4, 16, 64),
    "percents": ("0.5", "0.25, 0.5, 0.75", "0.1, 0.3, 0.5, 0.7, 0.9"),
    "ece_weight": (0.0, 0.5, 1.0, 2.0, 4.0),
    "ece_beta": (0.0, 0.001, 0.1),
    "ece_form": ("per_sample", "per_bin"),
    "entropy_weight": (0.0, 0.05, 0.2, 0.5),
}
SEEDS = (0, 1, 2)
OBJECTIVE, TRAINING = ("ece_weight", "ece_beta", "ece_form", "entropy_weight"), ("steps", "learning_rate", "batch_size")
Inputs = dict[str, object]
Measured = dict[str, float]


def measure(quick: bool) -> dict:
    """quick: two values of the first input, with few pictures and a single seed."""
    tests, few, held_out = (32, 64, 32) if quick else (TEST, FEW, HELD_OUT)
    values = {"steps": (20, 40)} if quick else VALUES
    seeds = SEEDS[:1] if quick else SEEDS
    defaults = {name: value for name, value in defaults_of(NODE).items() if name in VALUES}
    train, test = trainer(few, held_out), views(tests, TEST_SEED)
    kept: dict[tuple, Measured] = {}

    def row(inputs: Inputs) -> dict[str, Measured]:
        """The mean over all seeds, and the lowest and highest of them."""
        keys = [(seed, *inputs.values()) for seed in seeds]
        for key in keys:
            if key not in kept:  # the defaults are a value of each input
                kept[key] = of_all_percents(train(inputs, seed=key[0]), test)
                print(key, kept[key], flush=True)
        found = [kept[key] for key in keys]
        return {name: _spread([one[name] for one in found]) for name in MEASURES}

    as_it_came = of_all_percents(classifier(CLEAN), test)
    return {
        "pictures": tests, "seeds": len(seeds), "defaults": {name: str(value) for name, value in defaults.items()},
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
    bars = f"the lowest and highest of {found['seeds']} trainings"
    input_panels(
        rows, {NODE_NAME: named(found["as it came"])}, {NODE_NAME: found["defaults"]}, measures, bars,
        "inputs-of-calibration", folder, dotted="the classifier as it came",
    )  # fmt: skip


if __name__ == "__main__":
    results.main("calibration_inputs", __doc__, measure, draw)
