"""What is kept of a sampling: all on the CPU, and small."""

import math
from dataclasses import dataclass

import torch
from comfy.latent_formats import LatentFormat

VALUES = 4096  # of a latent that are kept to know it again
CLOSE = 0.02  # share of the largest value by which a latent may have been rounded on its way (to bfloat16, say)


@dataclass(frozen=True)
class Curve:
    """values: [len(steps), B], of each picture of the batch. steps: counted from 0."""

    steps: tuple[int, ...]
    values: torch.Tensor


@dataclass(frozen=True)
class Map:
    """values: [layers, len(steps)], NaN where nothing was measured."""

    steps: tuple[int, ...]
    values: torch.Tensor


@dataclass(frozen=True)
class ClassifierCurves:
    """Of one that guides. wanted: the classes, in words. confidence: its probability of them. gradient: the size of that."""

    wanted: str
    confidence: Curve
    gradient: Curve


@dataclass(frozen=True)
class Glimpse:
    """A part of a latent, by which it is known again."""

    shape: tuple[int, ...]
    values: torch.Tensor

    @classmethod
    def of(cls, latent: torch.Tensor) -> "Glimpse":
        flat = latent.detach().flatten()
        values = (
            flat[:: max(len(flat) // VALUES, 1)].float().nan_to_num()
        )  # a broken picture is one that people look into
        return cls(tuple(latent.shape), values.cpu())

    def difference(self, latent: torch.Tensor) -> float:
        """The largest one from a latent, as a share of the largest value; infinite where shapes differ."""
        if tuple(latent.shape) != self.shape:
            return math.inf
        largest = self.values.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
        return float((self.values - Glimpse.of(latent).values).abs().max() / largest)


@dataclass(frozen=True)
class SamplingRecord:
    """steps: of the sampling. size, angle: of guidance (guidance_core/guidance_measures.py). entropy: by the names of branches,
    the positive one first; why_no_entropy: in words, where there is none. classifiers: of those that guide. predictions: small
    pictures (small_picture.py) of x0 of the first of the batch after some steps. drawn: what the sampler gave, and its last
    prediction."""

    steps: int
    size: Curve | None
    angle: Curve | None
    entropy: dict[str, Map]
    why_no_entropy: str | None
    classifiers: tuple[ClassifierCurves, ...]
    predictions: tuple[tuple[int, torch.Tensor], ...]
    latent_format: LatentFormat
    drawn: tuple[Glimpse, ...]

    def difference(self, latent: torch.Tensor) -> float:
        """How far a latent, [B, C, ...], is from what the sampling drew; at most `CLOSE` if it drew it."""
        return min(glimpse.difference(latent) for glimpse in self.drawn)
