"""Smooth-ECE loss: fine-tunes a classifier until its confidence is its accuracy.

Paper: https://arxiv.org/abs/2511.05844. For n samples with top probability p̂_i and correctness a_i ∈ {0, 1}:

    L_ECE = (1/n) Σ_b Σ_{i∈b} √((p̂_i − a_i)² + β)

As printed, the bins b of p̂ drop out of the double sum: that is `per_sample`. `per_bin` compares means, as the expected
calibration error does: Σ_b (n_b/n) √((mean p̂ − mean a)² + β). Both are differentiable in p̂; a is a constant.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .named_choice import check_choice

FORMS = ("per_sample", "per_bin")
BINS = 15  # of p̂ in (0, 1], of equal width; empty ones weigh nothing


def smooth_ece(logits: Tensor, labels: Tensor, beta: float, form: str = "per_sample") -> Tensor:
    """L_ECE of logits [n, classes] and labels [n]: a number of √β or more.

    beta: β ≥ 0 rounds the corner of |p̂ − a| off; 0 is the absolute difference, whose gradient at 0 is taken as 0.
    Raises ValueError for an unknown form.
    """
    check_choice("form", form, FORMS)
    confidence, prediction = logits.softmax(-1).max(-1)
    correct = (prediction == labels).to(confidence)
    if form == "per_sample":
        return _rounded(confidence - correct, beta).mean()
    number = (confidence.detach() * BINS).ceil().long().clamp(1, BINS) - 1
    in_bin = F.one_hot(number, BINS).to(confidence)  # [n, bins]
    count = in_bin.sum(0)
    gap = (confidence - correct) @ in_bin / count.clamp(min=1)
    return (count / len(labels)) @ _rounded(gap, beta)


def _rounded(difference: Tensor, beta: float) -> Tensor:
    """√(d² + β), with a gradient of 0 at d = β = 0, where the root has none."""
    square = difference.square() + beta
    return torch.where(square > 0, square.where(square > 0, 1).sqrt(), 0)
