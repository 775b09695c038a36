"""Attention as gradient descent on a Hopfield energy: the heart of Entropy Rectifying Guidance (ERG).

Paper: Entropy Rectifying Guidance for Diffusion and Flow Models, https://arxiv.org/abs/2504.13987 (Algorithm 2).

A query ξ is the state, the keys are the stored patterns, β = 1/√d:

    E(ξ) = ½ ξᵀξ − α/(τβ) · logsumexp_j( τ β ξᵀ k_j )
    ξ ← ξ − γ ∇E(ξ) = (1 − γ) ξ + γ α · softmax( τ β ξ Kᵀ ) K,   K_iter times

An attention layer makes this very step with its values in the place of the second K. α = γ = τ = K_iter = 1 is
ordinary attention; τ < 1 flattens it (higher entropy), τ > 1 sharpens it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from .number_range import check_number, whole_number

MOST_ITERATIONS = 1000
MOST_GROWTH = 1000.0  # of a query in its descent: half precision ends at 65,504


@dataclass(frozen=True)
class AttentionEnergy:
    """The parameters of the energy and its descent.

    temperature: τ ≥ 0 multiplies the attention logits. 0 attends to everything alike, 1 changes nothing.
    alpha: α ≥ 0 weighs what attention retrieves against the query itself.
    step_size: γ ≥ 0 is the length of a descent step; 1 replaces the query by what was retrieved.
    iterations: K_iter ≥ 1 descent steps, each one an attention call.
    flatness: in 0..1, the share of the way to uniform attention that τ is to bring about, whatever the size of the logits
    (attention_flatness.py); below 0, to −1, for the temperature above, which otherwise has no meaning.
    """

    temperature: float = 0.01
    alpha: float = 1.0
    step_size: float = 1.0
    iterations: int = 1
    flatness: float = -1.0

    def __post_init__(self) -> None:
        for name in ("temperature", "alpha", "step_size"):
            check_number(name, getattr(self, name), lowest=0)
        whole = whole_number("iterations", self.iterations, 1, MOST_ITERATIONS)
        object.__setattr__(self, "iterations", whole)  # a linked one may be 2.0
        if self.step_size > 2 and whole * math.log(self.step_size - 1) > math.log(MOST_GROWTH):
            raise ValueError(
                f"step_size = {self.step_size:g}, iterations = {self.iterations}: with a step_size above 2 a query grows in each "
                f"iteration, here beyond {MOST_GROWTH:,.0f} times in all. Lower one of them."
            )
        if not -1 <= self.flatness <= 1:
            raise ValueError(
                f"flatness = {self.flatness}: it must be below 0, to -1 (use temperature), or between 0 and 1."
            )

    @property
    def fixed_temperature(self) -> float | None:
        """τ where it is the same for all attention, or None where it is to be measured."""
        if self.flatness < 0:
            return self.temperature
        return 1.0 - self.flatness if self.flatness in (0, 1) else None

    @property
    def is_ordinary(self) -> bool:
        """True where the step is exactly standard attention."""
        return self.fixed_temperature == 1 and self.only_scales_queries

    @property
    def only_scales_queries(self) -> bool:
        """True where one attention call on queries scaled by τ is the whole step: no cost over attention."""
        return self.alpha == self.step_size == self.iterations == 1


def energy(query: torch.Tensor, keys: torch.Tensor, parameters: AttentionEnergy) -> torch.Tensor:
    """E(ξ) of each query: [..., N, d] and [..., M, d] give [..., N]. Needs τ > 0."""
    beta = 1 / math.sqrt(query.shape[-1])
    sharpness = parameters.temperature * beta
    retrieved = torch.logsumexp(sharpness * query @ keys.transpose(-1, -2), dim=-1)
    return 0.5 * query.square().sum(-1) - parameters.alpha / sharpness * retrieved


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Shannon entropy, in nats, of softmax(logits) over the last dimension: [..., M] gives [...] in 0..log M."""
    log_probability = logits.log_softmax(-1)
    return -(log_probability.exp() * log_probability).sum(-1)


def descend(
    query: torch.Tensor, attend: Callable[[torch.Tensor], torch.Tensor], parameters: AttentionEnergy
) -> torch.Tensor:
    """K_iter descent steps of a query: ξ ← (1 − γ) ξ + γ α · attend(τ ξ).

    query: any shape that `attend` takes; attend(query) = softmax(β · query · Kᵀ) V must return that same shape.
    """
    for _ in range(parameters.iterations):
        query = step(query, attend(query * parameters.temperature), parameters)
    return query


def step(query: torch.Tensor, retrieved: torch.Tensor, parameters: AttentionEnergy) -> torch.Tensor:
    """One descent step from a query and what attention retrieved for τ · query; shapes are equal."""
    if parameters.step_size == 1:
        return parameters.alpha * retrieved
    return torch.lerp(query, parameters.alpha * retrieved, parameters.step_size)
