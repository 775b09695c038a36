"""Entropy-constrained training: a classifier that may not be surer than it has to, https://arxiv.org/abs/2206.11474.

    L = CE + η · KL(u ‖ p),   u the uniform distribution over N classes

Where the paper leaves the constraint open, this takes the divergence from uniform: it is 0 where
nothing is known, grows as −log of the least probable classes, and has the gradient of u's cross-entropy.
"""

import math

import torch.nn.functional as F
from torch import Tensor


def entropy_constraint(logits: Tensor) -> Tensor:
    """Mean KL(u ‖ p) ≥ 0 of logits [n, N], in nats."""
    return -F.log_softmax(logits, -1).mean() - math.log(logits.shape[-1])
