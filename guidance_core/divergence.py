"""f-divergences D_f(q‖p) = Σ_i q_i f(p_i/q_i) between a target q and a classifier's prediction p, and their gradients.

Paper: Divergence-regularised classifier guidance, https://arxiv.org/abs/2511.05844.

Each divergence comes with its weight w_f(q, p) = p f′(p/q) = ∂D_f/∂log p, from which

    ∇D_f = Σ_i w_i ∇log p_i,    ∂D_f/∂f_j = w_j − p_j Σ_i w_i    for logits f and p = softmax(f).

Everything takes log p, finite for any logits, so that nothing is lost where p underflows.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Divergence:
    """value: (q, log p), both [B, N], to D_f [B] ≥ 0. weight: (q, log p) to w_f [B, N]."""

    value: Callable[[Tensor, Tensor], Tensor]
    weight: Callable[[Tensor, Tensor], Tensor]
    needs_full_support: bool = False  # infinite where a q_i is 0


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p‖q) = Σ p (log p − log q) with 0 log 0 = 0; log q may be −∞ only where log p is."""
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), 0).sum(-1)


def _log_mixture(q: Tensor, log_p: Tensor) -> Tensor:
    """log m of m = (p + q)/2."""
    return torch.logaddexp(log_p, q.log()) - math.log(2)


def _js_value(q: Tensor, log_p: Tensor) -> Tensor:
    log_m = _log_mixture(q, log_p)
    return 0.5 * (_kl(log_p, log_m) + _kl(q.log(), log_m))


DIVERGENCES: dict[str, Divergence] = {
    # f(t) = −log t: KL(q‖p), mode covering.
    "reverse_kl": Divergence(lambda q, log_p: _kl(q.log(), log_p), lambda q, log_p: -q),
    # f(t) = t log t: KL(p‖q), mode seeking. The constant of p (log(p/q) + 1) cancels in the gradient.
    "forward_kl": Divergence(
        lambda q, log_p: _kl(log_p, q.log()),
        lambda q, log_p: log_p.exp() * (log_p - q.log() + 1),
        needs_full_support=True,
    ),
    # f(t) = ½ (t log t − (t + 1) log((t + 1)/2)): Jensen–Shannon, bounded by log 2.
    "jensen_shannon": Divergence(_js_value, lambda q, log_p: 0.5 * log_p.exp() * (log_p - _log_mixture(q, log_p))),
}
