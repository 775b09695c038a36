"""Density and coverage of drawn pictures among real ones, https://arxiv.org/abs/2002.09797.

Both ask which balls around real pictures hold which drawn ones; a ball reaches as far as its picture's k-th neighbour
among the real ones. Unlike precision and recall they are not led astray by one outlier with a huge ball.
"""

import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

NEIGHBOURS = 5  # the paper's k


def within_balls(real: Tensor, drawn: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """[R, D], true where drawn features [D, F] lie in the ball of real features [R, F]."""
    distances, _ = NearestNeighbors(n_neighbors=neighbours + 1).fit(real).kneighbors(real)  # each is its own first
    return torch.cdist(real, drawn) <= torch.from_numpy(distances[:, -1:])


def density(within: Tensor, neighbours: int = NEIGHBOURS) -> float:
    """How many balls hold a drawn picture, relative to k: about 1 for another sample of the real ones."""
    return within.float().sum(0).mean().item() / neighbours


def coverage(within: Tensor) -> float:
    """Share of real pictures whose ball holds a drawn one."""
    return within.any(1).float().mean().item()
