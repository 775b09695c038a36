"""The noise that a noise-aware classifier was trained on: from ᾱ, which every diffusion model has, to its timestep."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

STEPS = 1000  # of every schedule


class DiscreteSchedule(nn.Module):
    """Timesteps 0..999, at each of which a picture keeps ᾱ of its signal. betas: β_t [1000], float64."""

    kept: Tensor

    def __init__(self, betas: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", (1 - betas).cumprod(0).float(), persistent=False)

    def forward(self, x: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """x as it is, and the timesteps [B] of ᾱ [B]: between two of the table by its share, at its ends beyond."""
        kept = kept.to(self.kept.dtype)
        after = torch.searchsorted(-self.kept, -kept).clamp(1, STEPS - 1)
        high, low = self.kept[after - 1], self.kept[after]
        return x, after - 1 + ((high - kept) / (high - low)).clamp(0, 1)


class FlowSchedule(nn.Module):
    """x = (1 − t)x0 + tn, with timestep 1000t."""

    def forward(self, x: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """x brought from √ᾱ x0 + √(1 − ᾱ) n to (1 − t)x0 + tn, and the timesteps [B]."""
        kept = kept.clamp(0, 1)  # rounding can leave the range, which is no number under the root
        signal, noise = kept.sqrt(), (1 - kept).sqrt()
        total = signal + noise
        return x / total.to(x.dtype)[:, None, None, None], STEPS * noise / total


def _linear_betas() -> Tensor:
    return torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64)


def _cosine_betas() -> Tensor:
    time = torch.arange(STEPS + 1, dtype=torch.float64) / STEPS
    kept = torch.cos((time + 0.008) / 1.008 * torch.pi / 2).square()
    return (1 - kept[1:] / kept[:-1]).clamp(max=0.999)


SCHEDULES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: DiscreteSchedule(_linear_betas()),
    "cosine": lambda: DiscreteSchedule(_cosine_betas()),
    "flow": FlowSchedule,
}
