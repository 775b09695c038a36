"""The measures of the class-conditional tables, on features whose distances are known."""

import pytest
import torch

from benchmarks import in_process  # noqa: F401  (ComfyUI before what uses it)
from benchmarks.class_measures import MEASURES, Seen, measure

CLASSES, COUNT, FEATURES = 18, 900, 4


def seen(seed: int, shift: float = 0.0, right: float = 1.0) -> Seen:
    random = torch.Generator().manual_seed(seed)
    asked = torch.arange(COUNT) % CLASSES
    wrong = torch.rand(COUNT, generator=random) >= right
    features = torch.randn(COUNT, FEATURES, generator=random)
    return Seen(features + shift, torch.where(wrong, (asked + 1) % CLASSES, asked), asked)


def values(real: Seen, drawn: Seen) -> dict[str, float]:
    return {name: row["value"] for name, row in measure(real, drawn).items()}


def test_another_sample_of_the_same_is_at_the_ceiling():
    found = values(seen(0), seen(1))
    assert found.keys() == set(MEASURES) and found["accuracy"] == 1
    assert found["Fréchet"] < 0.1 and 0.85 < found["density"] < 1.15
    assert min(found[name] for name in ("precision", "recall", "coverage")) > 0.85


def test_a_shift_is_its_square_in_frechet_distance():
    found = values(seen(0), seen(1, shift=3.0))
    assert found["Fréchet"] == pytest.approx(FEATURES * 9, rel=0.05)
    assert found["precision"] < 0.1 and found["density"] < 0.1 and found["coverage"] < 0.1


def test_accuracy_and_its_interval():
    row = measure(seen(0), seen(1, right=0.7), resamples=200)["accuracy"]
    assert row["low"] < row["value"] < row["high"] and row["value"] == pytest.approx(0.7, abs=0.05)
    # Of a share of 0.7 in 900 pictures.
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * (0.7 * 0.3 / COUNT) ** 0.5, rel=0.2)


def test_features_of_the_wrong_class_are_far_in_the_joint_distance_alone():
    real = seen(0)
    features = real.features + torch.arange(COUNT)[:, None] % CLASSES  # a class has features of its own
    real, drawn = (Seen(features, real.told, asked) for asked in (real.asked, real.asked.roll(1)))
    found = values(real, drawn)
    assert found["Fréchet"] < 1e-3 < 1 < found["joint"]
