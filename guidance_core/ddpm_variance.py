"""The variance of a DDPM step: its two bounds, and what a network has learned between them.

https://arxiv.org/abs/2102.09672, equation 15. With α_t = ᾱ_t/ᾱ_{t−1} and β_t = 1 − α_t:

    large = β_t,    small = β̃_t = (1 − ᾱ_{t−1})/(1 − ᾱ_t) · β_t,
    Σ = exp( f · log β_t + (1 − f) · log β̃_t )  with f = (v + 1)/2 of the network's output v
"""

import torch
from torch import Tensor

VARIANCES = ("small", "large", "learned")


def step_variances(kept: Tensor) -> tuple[Tensor, Tensor]:
    """β̃_t and β_t, each [T], of T steps from ᾱ [T + 1], which rises to 1 or less. β̃ is 0 in a last step to ᾱ = 1."""
    now, following = kept[:-1].double(), kept[1:].double()
    large = 1 - now / following
    small = (1 - following) / (1 - now) * large
    return small.to(kept.dtype), large.to(kept.dtype)


def variance_bounds(kept: Tensor) -> tuple[Tensor, Tensor]:
    """The same with the step before's β̃ in a last step to ᾱ = 1, so that both have a logarithm.

    A single step to ᾱ = 1 has β for both.
    """
    small, large = step_variances(kept)
    before = small[-2:-1] if len(small) > 1 else large
    return torch.cat([small[:-1], torch.where(kept[-1] < 1, small[-1:], before)]), large


def learned_log_variance(v: Tensor, log_small: Tensor, log_large: Tensor) -> Tensor:
    """log Σ of v [B, C, H, W], about −1..1, between the logarithms of the bounds, which broadcast with it."""
    return torch.lerp(log_small, log_large, (v + 1) / 2)
