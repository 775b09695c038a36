"""Tilted sampling: weighs the samples of a batch by how likely their class already is.

Paper: Divergence-regularised classifier guidance, https://arxiv.org/abs/2511.05844.

    S_t = (1/t) log( (1/B) Σ_b exp( t · log p(y_b|x_b) ) )

Its gradient weighs sample b by softmax_b(t · log p_b). Used as weights of mean one, B · softmax, so that the strength
of guidance does not depend on the batch's size and t → 0 is guidance without tilt.
"""

import math

import torch
from torch import Tensor


def tilted_score(log_probabilities: Tensor, tilt: float) -> Tensor:
    """S_t, a number, of log p(y_b|x_b) [B]; their mean at t = 0."""
    if tilt == 0:
        return log_probabilities.mean()
    return ((tilt * log_probabilities).logsumexp(0) - math.log(len(log_probabilities))) / tilt


def tilted_weights(log_probabilities: Tensor, tilt: float) -> Tensor:
    """Weights [B] of mean one from log p(y_b|x_b) [B]. t > 0 favours samples that show their class already
    (quality), t < 0 those that do not yet (variety); t = 0 gives ones. Samples whose log p is NaN have none, and no part in
    those of the others."""
    known = ~log_probabilities.isnan()
    weights = torch.where(known, tilt * log_probabilities, -torch.inf).softmax(0)
    return torch.where(known, known.sum() * weights, 0)
