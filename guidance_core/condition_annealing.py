"""Condition-annealed sampling (CADS): noise on the condition in the first part of the sampling, for more variety.

Paper: CADS: Unleashing the Diversity of Diffusion Models through Condition-Annealed Sampling,
https://arxiv.org/abs/2310.17347. With time t from 1 (noise) to 0 (image) and n ~ N(0, I):

    γ(t) = 1 for t ≤ τ1,  (τ2 − t)/(τ2 − τ1) between,  0 for t ≥ τ2
    ĉ = √γ c + s √(1 − γ) n
    ĉ ← ψ [ (ĉ − mean ĉ)/std ĉ · std c + mean c ] + (1 − ψ) ĉ

mean and std are numbers of a sample: over all tokens and channels together, never over the batch. Public code takes them
over the whole tensor, which is the same for one sample.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .number_range import check_number, check_share
from .sampling_steps import CLOSE

LARGEST_NOISE = 1e30  # its statistics are those of the condition again, so that it may be large


@dataclass(frozen=True)
class ConditionAnnealing:
    """The parameters of CADS.

    noise_scale: s ≥ 0, in the condition's own units. 0 leaves every condition as it is, whatever γ.
    mixing: ψ in 0..1, how far mean and std are brought back to those of the condition.
    tau1, tau2: 0 ≤ τ1 ≤ τ2 ≤ 1. Where they are equal, γ is a step: 1 for t ≤ τ1, 0 above.
    """

    noise_scale: float = 0.25
    mixing: float = 1.0
    tau1: float = 0.6
    tau2: float = 0.9

    def __post_init__(self) -> None:
        check_number("noise_scale", self.noise_scale, lowest=0, highest=LARGEST_NOISE)
        for name in ("mixing", "tau1", "tau2"):
            check_share(name, getattr(self, name))
        if self.tau1 > self.tau2:
            raise ValueError(f"tau1 = {self.tau1} and tau2 = {self.tau2}: tau1 must not be above tau2.")

    @property
    def is_ordinary(self) -> bool:
        """True where no condition is ever changed."""
        return self.noise_scale == 0 or self.tau1 == 1

    @property
    def why_ordinary(self) -> str:
        """Why no condition is ever changed, where that is so."""
        return "noise_scale is 0. Set it above 0." if self.noise_scale == 0 else "tau1 is 1. Set it below 1."

    def kept(self, t: float) -> float:
        """γ(t), the share of the condition that is left at time t."""
        if t <= self.tau1:
            return 1.0
        if t >= self.tau2:
            return 0.0
        return (self.tau2 - t) / (self.tau2 - self.tau1)

    def kept_at(self, sigma: float, percent_to_sigma: Callable[[float], float]) -> float:
        """γ at a noise level σ, whose t is found by bisection.

        percent_to_sigma: σ of 1 − t, the share of the sampling that is done; it must not rise.
        """
        early, late = 1 - self.tau2, 1 - self.tau1
        if sigma <= percent_to_sigma(late) * (1 + CLOSE):
            return 1.0
        if sigma >= percent_to_sigma(early) * (1 - CLOSE):
            return 0.0
        for _ in range(32):
            middle = (early + late) / 2
            if percent_to_sigma(middle) > sigma * (1 + CLOSE):
                early = middle
            else:
                late = middle
        return self.kept(1 - early)

    def anneal(self, condition: Tensor, noise: Tensor, kept: float) -> Tensor:
        """ĉ of conditions c [B, ...] and noise n of the same shape, for γ = kept; with the condition's dtype and device."""
        if kept == 1 or self.noise_scale == 0:
            return condition
        wide = condition.to(torch.promote_types(condition.dtype, torch.float32))
        noisy = math.sqrt(kept) * wide + self.noise_scale * math.sqrt(1 - kept) * noise.to(wide)
        return torch.lerp(noisy, with_statistics_of(wide, noisy), self.mixing).to(condition.dtype)


def with_statistics_of(condition: Tensor, noisy: Tensor) -> Tensor:
    """`noisy` with each sample's mean and std of `condition`: (ĉ − mean ĉ)/std ĉ · std c + mean c. Both are [B, ...].

    A sample of `noisy` without any spread becomes the mean of `condition`.
    """
    over = tuple(range(1, condition.ndim))
    mean, spread = condition.mean(over, keepdim=True), condition.std(over, correction=0, keepdim=True)
    centred = noisy - noisy.mean(over, keepdim=True)
    own_spread = noisy.std(over, correction=0, keepdim=True)
    return centred / own_spread.where(own_spread > 0, 1) * spread + mean


def seeded_noise(shape: tuple[int, ...], *key: int | str) -> Tensor:
    """Standard normal noise [B, ...] on the CPU. Row i depends on the key and on i alone, not on B."""
    return torch.stack([torch.randn(shape[1:], generator=_generator(*key, row)) for row in range(shape[0])])


def _generator(*key: int | str) -> torch.Generator:
    # torch keeps only some of a seed's bits, and keys that lie side by side must not give related noise.
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))
