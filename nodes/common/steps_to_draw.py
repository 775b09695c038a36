"""Samplings without a step, such as SplitSigmas makes at an end: nodes have nothing to do in them, and say so."""

from typing import Any

from torch import Tensor

NO_STEP = (
    "sigmas holds a single noise level, which is no step. That is as it should be where another sampler does them."
)


def has_a_step(noise: Tensor, latent_image: Tensor, sampler: Any, sigmas: Tensor, *_: Any, **__: Any) -> bool:
    """Of a sampling, by what ComfyUI's OUTER_SAMPLE gets; sigmas [steps + 1]."""
    return len(sigmas) > 1
