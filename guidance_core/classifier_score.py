"""The score S(x, y) that classifier guidance climbs, and its gradient with respect to the classifier's logits.

Paper: Divergence-regularised classifier guidance, https://arxiv.org/abs/2511.05844.

    S(x, y) = τ1 f_y − logsumexp_i(τ2 f_i) − a · D_f(q_y ‖ p) + h · H(p),    p = softmax(f)

∂S/∂f is a closed form, so one vector-Jacobian product through the classifier gives ∇_x S for every divergence.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .divergence import DIVERGENCES
from .named_choice import check_choice
from .number_range import check_number, check_share


@dataclass(frozen=True)
class ClassifierScore:
    """The parameters of S.

    divergence: 'none' or a key of `DIVERGENCES`. divergence_weight: a ≥ 0.
    target_confidence: ε in 0..1, the mass that the smoothed target keeps on the label; below 1 for forward_kl, whose
    divergence from a target with empty classes is infinite.
    joint_temperature: τ1 ≥ 0 weighs the label's logit. marginal_temperature: τ2 ≥ 0 weighs the other logits; τ2 < τ1
    is the off-the-shelf guidance of arXiv 2310.11311, where no certainty makes the gradient vanish.
    entropy_weight: h, times the prediction's entropy in nats; above 0 rewards doubt, below 0 certainty.
    """

    divergence: str = "none"
    divergence_weight: float = 1.0
    target_confidence: float = 0.9
    joint_temperature: float = 1.0
    marginal_temperature: float = 1.0
    entropy_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in ("divergence_weight", "joint_temperature", "marginal_temperature"):
            check_number(name, getattr(self, name), lowest=0)
        check_number("entropy_weight", self.entropy_weight)
        check_choice("divergence", self.divergence, ("none", *DIVERGENCES))
        check_share("target_confidence", self.target_confidence)
        if self._regularised and DIVERGENCES[self.divergence].needs_full_support and self.target_confidence == 1:
            raise ValueError(
                f"target_confidence = 1 makes the divergence '{self.divergence}' infinite: choose a value below 1."
            )

    @property
    def _regularised(self) -> bool:
        return self.divergence != "none" and self.divergence_weight > 0

    def value(self, logits: Tensor, labels: Tensor) -> Tensor:
        """S [B] of logits [B, N] and labels [B] in 0..N−1, in float32 or the logits' higher precision."""
        logits = _precise(logits)
        score = self.joint_temperature * logits.gather(1, labels[:, None])[:, 0]
        score = score - torch.logsumexp(self.marginal_temperature * logits, -1)
        log_p = logits.log_softmax(-1)
        if self._regularised:
            target = smoothed_target(labels, logits.shape[1], self.target_confidence, logits.dtype)
            score = score - self.divergence_weight * DIVERGENCES[self.divergence].value(target, log_p)
        if self.entropy_weight:
            score = score - self.entropy_weight * (log_p.exp() * log_p).sum(-1)
        return score

    def logit_gradient(self, logits: Tensor, labels: Tensor) -> Tensor:
        """∂S/∂f [B, N] of logits [B, N] and labels [B] in 0..N−1; precision as in `value`."""
        logits = _precise(logits)
        gradient = -self.marginal_temperature * (self.marginal_temperature * logits).softmax(-1)
        gradient.scatter_add_(1, labels[:, None], gradient.new_full((len(labels), 1), self.joint_temperature))
        log_p = logits.log_softmax(-1)
        if self._regularised:
            target = smoothed_target(labels, logits.shape[1], self.target_confidence, logits.dtype)
            weight = DIVERGENCES[self.divergence].weight(target, log_p)
            gradient -= self.divergence_weight * (weight - log_p.exp() * weight.sum(-1, keepdim=True))
        if self.entropy_weight:
            p_log_p = log_p.exp() * log_p
            gradient -= self.entropy_weight * (p_log_p - log_p.exp() * p_log_p.sum(-1, keepdim=True))
        return gradient


def smoothed_target(labels: Tensor, classes: int, confidence: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """q_y(i) = (1 − ε)/N + ε · 1[i = y] as [B, N] for labels [B]; ε is the mass that stays on the label."""
    target = torch.full((len(labels), classes), (1 - confidence) / classes, dtype=dtype, device=labels.device)
    return target.scatter_add_(1, labels[:, None], target.new_full((len(labels), 1), confidence))


def log_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """log p(y|x) [B] of logits [B, N] and labels [B]."""
    return _precise(logits).log_softmax(-1).gather(1, labels[:, None])[:, 0]


def _precise(logits: Tensor) -> Tensor:
    """Half precision loses small probabilities: work in float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
