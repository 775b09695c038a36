"""The variance of a DDPM step: its two bounds, and what a network has learned between them.

https://arxiv.org/abs/2102.09672, equation 15. With α_t = ᾱ_t/ᾱ_{t−1} and β_t = 1 − α_t:

    large = β_t,    small = β̃_t = (1 − ᾱ_{t−1})/(1 − ᾱ_t) · β_t,
    Σ = exp( f · log β_t + (1 − f) · log β̃_t )  with f = (v + 1)/2 of the network's output v

Where there is almost no noise, ᾱ is 1 but for rounding. So 1 − ᾱ is asked for beside it, and β_t taken from both:

    β_t = (1 − ᾱ_t) − α_t (1 − ᾱ_{t−1})
"""

import torch
from torch import Tensor

VARIANCES = ("small", "large", "learned")


def step_variances(kept: Tensor, lost: Tensor) -> tuple[Tensor, Tensor]:
    """β̃_t and β_t, each [T], of T steps. β̃ is 0 in a last step to the clean picture.

    kept: ᾱ [T + 1], rising to 1 or less. lost: 1 − ᾱ [T + 1], falling to 0 or more, and above 0 before its end.
    """
    alpha = kept[:-1] / kept[1:]
    large = lost[:-1] - alpha * lost[1:]
    return lost[1:] / lost[:-1] * large, large


def variance_bounds(kept: Tensor, lost: Tensor) -> tuple[Tensor, Tensor]:
    """The same with the step before's β̃ in a last step to the clean picture, so that both have a logarithm.

    A single step to the clean picture has β for both.
    """
    small, large = step_variances(kept, lost)
    before = small[-2:-1] if len(small) > 1 else large
    return torch.cat([small[:-1], torch.where(lost[-1] > 0, small[-1:], before)]), large


def learned_log_variance(v: Tensor, log_small: Tensor, log_large: Tensor) -> Tensor:
    """log Σ of v [B, C, H, W], about −1..1, between the logarithms of the bounds, which broadcast with it."""
    return torch.lerp(log_small, log_large, (v + 1) / 2)
