"""How the gradient of a score moves the prediction of the clean sample.

Classifier guidance, https://arxiv.org/abs/2105.05233, in x0 form. By Tweedie's formula, for x = a·x0 + b·n the score
∇_x S shifts the prediction by b²/a · ∇_x S:

    noise added, x = x0 + σn:      x̂0 ← x̂0 + s · σ² · g
    flow, x = (1 − σ)x0 + σn:      x̂0 ← x̂0 + s · σ²/(1 − σ) · g

Some flow models have louder noise: b is σ times a number of theirs.

Off-the-shelf guidance, https://arxiv.org/abs/2310.11311, takes g at x̂0, where a clean-image classifier knows its way,
in place of the gradient at x.

Scale-free, so that one strength serves every model and noise level, each gradient gets the RMS of its sample:

    x̂0 ← x̂0 + s · u · rms(x̂0) · g/rms(g),    u = the share of noise in x

u is a choice of ours: a shift in the last steps stays in the picture, where it is what fools a classifier, not what
shows the class.
"""

import torch
from torch import Tensor

MINIMAL_SIGNAL = 0.02  # share of x0 in a flow model's x below which σ²/(1 − σ) is held: at σ = 1 it is infinite


def x0_shift(sigma: Tensor, flow: bool, noise_scale: float = 1.0) -> Tensor:
    """b²/a of noise levels σ: s²σ² or, for a flow model with σ in 0..1, s²σ²/(1 − σ), with s = noise_scale."""
    noise = (noise_scale * sigma).square()
    return noise / (1 - sigma).clamp(min=MINIMAL_SIGNAL) if flow else noise


def noise_share(sigma: Tensor, flow: bool) -> Tensor:
    """How much of x is noise, 0..1: σ of a flow model, σ/√(1 + σ²) for data of unit variance otherwise."""
    return sigma if flow else sigma / (1 + sigma.square()).sqrt()


def at_scale_of(gradient: Tensor, sample: Tensor) -> Tensor:
    """Each gradient of a batch scaled to the RMS of its sample: one strength for every model and noise level.

    Both [B, ...]. A gradient of zeros stays zero.
    """
    peak = per_sample(gradient.abs().flatten(1).amax(1), gradient)
    shape = gradient / torch.where(peak > 0, peak, 1)  # squares of a sure classifier's gradient underflow
    return shape * (_rms(sample) / torch.where(peak > 0, _rms(shape), 1))


def finite_or_zero(gradient: Tensor, log_probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient [B, ...] with zeros for each sample that has a NaN or an infinity, in its log-probability [B] too,
    and which samples had, [B]."""
    broken = ~(gradient.isfinite().flatten(1).all(1) & log_probabilities.isfinite())
    return torch.where(per_sample(broken, gradient), 0, gradient), broken


def _rms(values: Tensor) -> Tensor:
    return per_sample(values.flatten(1).square().mean(1).sqrt(), values)


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Values [B] shaped to multiply a tensor [B, ...]."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))
