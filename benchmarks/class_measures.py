"""How near drawn pictures of the class-conditional demo world are to real ones, with bootstrap intervals.

accuracy: share that shows the class asked for. Fréchet: distance of features; joint: of these together with the class
(https://arxiv.org/abs/1907.08175). precision, recall: k = 3 (https://arxiv.org/abs/1904.06991). density, coverage: k = 5
(https://arxiv.org/abs/2002.09797). All in the features of class_judge.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import bootstrap
from torch import Tensor

from demo.classes import world

from .class_judge import ClassJudge
from .density_coverage import NEIGHBOURS, within_balls
from .judge import frechet, is_within

MEASURES = ("accuracy", "Fréchet", "joint", "precision", "recall", "density", "coverage")
LOWER_IS_BETTER = ("Fréchet", "joint")
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Seen:
    """features [N, F] of pictures, the classes told [N], and those asked for [N]."""

    features: Tensor
    told: Tensor
    asked: Tensor

    def __getitem__(self, rows) -> "Seen":
        return Seen(self.features[rows], self.told[rows], self.asked[rows])

    def __len__(self) -> int:
        return len(self.asked)


class Eyes:
    """A judge, looking."""

    def __init__(self, judge: ClassJudge):
        self.judge = judge

    @torch.no_grad()
    def __call__(self, pictures: Tensor, asked: Tensor) -> Seen:
        """pictures [N, 3, 32, 32] in 0..1."""
        parts = pictures.split(256)
        return Seen(
            torch.cat([self.judge(part) for part in parts]),
            torch.cat([self.judge.classify(part) for part in parts]),
            asked,
        )

    def real(self, count: int, seed: int) -> Seen:
        """Real pictures, the classes in turn."""
        labels = torch.arange(count) % len(world.CLASSES)
        return self(world.draw(labels, torch.Generator().manual_seed(seed)), labels)


def measure(real: Seen, drawn: Seen, resamples: int = 0) -> dict[str, dict[str, float]]:
    """For each measure its value and, with resamples, the ends of its interval."""
    near = within_balls(real.features, drawn.features)
    samples = {  # what a measure is the mean of: of drawn pictures, for recall and coverage of real ones
        "accuracy": (drawn.told == drawn.asked).double(),
        "precision": is_within(drawn.features, real.features).double(),
        "recall": is_within(real.features, drawn.features).double(),
        "density": near.double().sum(0) / NEIGHBOURS,
        "coverage": near.any(1).double(),
    }
    distances = {
        "Fréchet": lambda rows: frechet(real.features, drawn.features[rows]),
        "joint": lambda rows: frechet(_joined(real, real), _joined(drawn[rows], real)),
    }
    numbers = {name: _with_interval(np.mean, values.numpy(), resamples, True) for name, values in samples.items()}
    everything = np.arange(len(drawn))
    numbers |= {name: _with_interval(of, everything, resamples, False) for name, of in distances.items()}
    return {name: numbers[name] for name in MEASURES}


def _with_interval(statistic: Callable, values: np.ndarray, resamples: int, vectorized: bool) -> dict[str, float]:
    found = {"value": float(statistic(values))}
    if not resamples:
        return found
    interval = bootstrap(
        (values,), statistic, n_resamples=resamples, confidence_level=CONFIDENCE, method="basic",
        vectorized=vectorized, rng=np.random.default_rng(0), batch=1 if not vectorized else 100,
    ).confidence_interval  # fmt: skip
    return found | {"low": float(interval.low), "high": float(interval.high)}


def _joined(seen: Seen, real: Seen) -> Tensor:
    """Features beside the class asked for, which weighs as much as they do."""
    weight = real.features.norm(dim=1).mean()
    return torch.cat([seen.features, weight * F.one_hot(seen.asked, len(world.CLASSES))], 1)
