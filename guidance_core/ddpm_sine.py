"""The DDPM update with the sine schedule of off-the-shelf classifier guidance.

DDPM: https://arxiv.org/abs/2006.11239. Sine schedule: https://arxiv.org/abs/2310.11311, which
https://arxiv.org/abs/2511.05844 uses too. With α_t = ᾱ_t/ᾱ_{t−1}, β_t = 1 − α_t:

    x_t = √ᾱ_t x0 + √(1 − ᾱ_t) n
    mean = √ᾱ_{t−1} β_t/(1 − ᾱ_t) · x̂0 + √α_t (1 − ᾱ_{t−1})/(1 − ᾱ_t) · x_t
    β̃_t = (1 − ᾱ_{t−1})/(1 − ᾱ_t) · β_t
    x_{t−1} ~ N( mean + s (Σ_t + γ sin(π t/T) max_t β̃_t) g,  Σ_t )

Σ_t is β̃_t (small) or β_t (large), or a network has learned it between them: ddpm_variance.py.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .ddpm_variance import step_variances, variance_bounds


@dataclass(frozen=True)
class DDPMSchedule:
    """Coefficients of T steps, each a tensor [T]: mean = x0 · x̂0 + x · x_t; variance is the small or large Σ_t.

    added: γ sin(π t/T) max β̃, what the guidance's weight gets beside Σ_t. t falls from T at the first step to 1.
    """

    x0: Tensor
    x: Tensor
    variance: Tensor
    added: Tensor

    def to(self, like: Tensor) -> "DDPMSchedule":
        """The same in the number format and on the device of another tensor."""
        return DDPMSchedule(self.x0.to(like), self.x.to(like), self.variance.to(like), self.added.to(like))


def kept_signal(sigmas: Tensor, flow: bool, noise_scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """ᾱ and 1 − ᾱ of noise levels, and the factor that brings x there to √ᾱ x0 + √(1 − ᾱ) n.

    x is x0 + sσn or, for a flow model with σ in 0..1, (1 − σ)x0 + sσn, with s = noise_scale. 1 − ᾱ is right where ᾱ is 1 but
    for rounding, too.
    """
    signal, noise = 1 - sigmas if flow else torch.ones_like(sigmas), noise_scale * sigmas
    factor = (signal.square() + noise.square()).rsqrt()
    return (signal * factor).square(), (noise * factor).square(), factor


def ddpm_schedule(kept: Tensor, lost: Tensor, gamma: float, large: bool = False) -> DDPMSchedule:
    """From ᾱ [T + 1], rising from 0 or more to 1 or less, and lost = 1 − ᾱ [T + 1], above 0 before its end.

    gamma: γ ≥ 0; 0 is DDPM's own weight. large: which Σ_t. In a last step to ᾱ = 1, which takes no noise, the large one is that
    of guided-diffusion: the step before's β̃.
    """
    now, following = kept[:-1], kept[1:]
    small, beta = step_variances(kept, lost)
    variance = torch.where(lost[1:] > 0, beta, variance_bounds(kept, lost)[0]) if large else small
    time = torch.arange(len(now), 0, -1, device=kept.device, dtype=kept.dtype) / len(now)
    return DDPMSchedule(
        following.sqrt() * beta / lost[:-1],
        (now / following).sqrt() * lost[1:] / lost[:-1],
        variance,
        gamma * small.max() * torch.sin(torch.pi * time),
    )
