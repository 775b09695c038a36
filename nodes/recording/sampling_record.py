"""What is kept of a sampling: all on the CPU, and small."""

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
class Glimpse:
    """A part of a latent, by which it is known again."""

    shape: tuple[int, ...]
    values: torch.Tensor

    @classmethod
    def of(cls, latent: torch.Tensor) -> "Glimpse":
        flat = latent.detach().flatten()
        return cls(tuple(latent.shape), flat[:: max(len(flat) // VALUES, 1)].float().cpu())

    def is_of(self, latent: torch.Tensor) -> bool:
        """Whether this is a glimpse of a latent, but for rounding."""
        if tuple(latent.shape) != self.shape:
            return False
        other = Glimpse.of(latent).values
        return bool((self.values - other).abs().max() <= CLOSE * self.values.abs().max())


@dataclass(frozen=True)
class SamplingRecord:
    """steps: of the sampling. size, angle: of guidance (guidance_core/guidance_measures.py). entropy: by the names of branches,
    the positive one first; why_no_entropy: in words, where there is none. confidence, gradient: of the classifier, where one
    guides. predictions: small pictures (small_picture.py) of x0 of the first of the batch after some steps. drawn: what the
    sampler gave, and its last prediction."""

    steps: int
    size: Curve | None
    angle: Curve | None
    entropy: dict[str, Map]
    why_no_entropy: str | None
    confidence: Curve | None
    gradient: Curve | None
    predictions: tuple[tuple[int, torch.Tensor], ...]
    latent_format: LatentFormat
    drawn: tuple[Glimpse, ...]

    def is_of(self, latent: torch.Tensor) -> bool:
        """Whether a latent, [B, C, ...], is what the sampling drew."""
        return any(glimpse.is_of(latent) for glimpse in self.drawn)
