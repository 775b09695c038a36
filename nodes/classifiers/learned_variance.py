"""The variance of a DDPM step that a network has learned, from inside its evaluation to the sampler that asks for it.

A network of ComfyUI returns its prediction alone; what it says of the variance beside travels past ComfyUI, through the
transformer options of the sampler's own evaluations. The formula is in guidance_core/ddpm_variance.py.
"""

from typing import Any

from torch import Tensor

KEY = "entropy_guidance_learned_variance"


def tell(values: Tensor, transformer_options: dict[str, Any]) -> None:
    """values: v [B, C, H, W], in about −1..1. Called by a network in its evaluation; kept where a sampler asked."""
    asked = transformer_options.get(KEY)
    if asked is not None:
        asked.take(values, transformer_options)
