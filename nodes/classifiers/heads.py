"""What a classifier's last layer says of its classes. Guidance takes the probability of one from a softmax over all logits."""

from collections.abc import Sequence
from typing import Any

import torch

# What transformers calls `problem_type`, where a softmax means nothing.
WITHOUT_SOFTMAX = {
    "multi_label_classification": "a picture may have several of its classes at once, and guidance needs one of all",
    "regression": "it tells a number rather than a class",
}


def names_of_logits(
    module: torch.nn.Module, logits: int, names: Sequence[str], problem: str | None = None
) -> list[str]:
    """The names of the classes that a module gives logits [B, N] for. problem: what its file says that it was trained for.

    One of a single logit z tells whether a picture is of a class, by a sigmoid: from now on it gives [0, z], whose softmax
    that is, for "not cat" and "cat", or for the two that its file names. Raises ValueError for a problem of another kind.
    """
    if problem in WITHOUT_SOFTMAX:
        raise ValueError(
            f"its problem_type is {problem}: {WITHOUT_SOFTMAX[problem]}. Use a classifier with one class for each picture."
        )
    if logits == 1:
        module.register_forward_hook(_beside_zero)
    return [f"not {names[0]}", names[0]] if logits == len(names) == 1 else list(names)


def _beside_zero(_module: torch.nn.Module, _inputs: Any, logits: torch.Tensor) -> torch.Tensor:
    """[B, 1] to [B, 2]."""
    return torch.cat([torch.zeros_like(logits), logits], dim=1)
