"""How sure the class-conditional demo model's classifiers are, and how often right: `python -m benchmarks.class_calibration`.

As they came and fine-tuned with each objective, on new pictures, finished and as the model predicts them at a quarter, half and
three quarters of the sampling. Writes docs/results/class_calibration.json; some ten minutes on one core.
"""

from statistics import mean

from . import results
from .class_bench import CLEAN, OBJECTIVES, classifier, views
from .in_process import pack_module

TEST, SEED = 1008, 5
MEASURES = ("accuracy", "confidence", "ece", "smooth_ece")


def measure(quick: bool) -> dict:
    """quick: of the classifier as it came alone."""
    count = 36 if quick else TEST
    test = views(count, SEED)
    of_classifier = pack_module("nodes.calibration.measurement").measure
    rows: dict[str, dict[str, float]] = {}
    for name in (CLEAN,) if quick else (CLEAN, *OBJECTIVES):
        errors = of_classifier(classifier(name), test)
        rows[name] = {measure: mean(getattr(error, measure) for error in errors.values()) for measure in MEASURES}
        rows[name] |= {
            f"{measure} {percent:.0%}": getattr(error, measure)
            for percent, error in errors.items()
            for measure in MEASURES
        }
        print(name, rows[name], flush=True)
    return {"pictures": count, "rows": rows}


if __name__ == "__main__":
    results.main("class_calibration", __doc__, measure)
