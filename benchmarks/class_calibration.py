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
    rows = {}
    for name in (CLEAN,) if quick else (CLEAN, *OBJECTIVES):
        rows[name] = of_all_percents(classifier(name), test)
        print(name, rows[name], flush=True)
    return {"pictures": count, "rows": rows}


def of_all_percents(guidance_classifier, test) -> dict[str, float]:
    """Means over the shares of the sampling that example views have, and each share's own."""
    errors = pack_module("nodes.calibration.measurement").measure(guidance_classifier, test)
    means = {measure: mean(getattr(error, measure) for error in errors.values()) for measure in MEASURES}
    return means | {
        f"{measure} {percent:.0%}": getattr(error, measure) for percent, error in errors.items() for measure in MEASURES
    }


if __name__ == "__main__":
    results.main("class_calibration", __doc__, measure)
