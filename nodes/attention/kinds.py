"""Which attention is self-attention (within the picture) and which is cross-attention (from the picture to the prompt).

A U-Net's blocks have a module for each, which says so in the transformer options of its calls; a call without that is another
node's. Elsewhere cross-attention reads a sequence of another length than its queries.
"""

from collections.abc import Callable
from functools import wraps
from types import MethodType
from typing import Any

import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .object_patches import add_patches
from .reach import KIND, name_of

KINDS = ("all", "self", "cross")
KEY = "entropy_guidance_kinds"

# Networks whose picture reads the prompt and itself in one attention of its own: keys are longer, and it is joint attention.
JOINT = ("comfy.ldm.qwen_image21.model.QwenImage21Transformer2DModel",)


def tell_kinds(model: ModelPatcher) -> None:
    """Has the attention of a U-Net say its kind. Object patches, which do nothing else."""
    add_patches(model, KEY, _patch)


def kind_of_call(network: torch.nn.Module, q: Tensor, k: Tensor, options: dict[str, Any]) -> str | None:
    """'self' or 'cross', or None for a call of a U-Net that comes from another node."""
    if "transformer_index" in options:  # which U-Nets alone count
        return options.get(KIND)
    return "self" if q.shape[-2] == k.shape[-2] or name_of(network) in JOINT else "cross"


def _patch(model: ModelPatcher) -> tuple[str, ...]:
    names = []
    for path, block in model.model.diffusion_model.named_modules():
        if not isinstance(block, BasicTransformerBlock):
            continue
        kinds = {
            "attn1": "cross" if block.disable_self_attn else "self",
            "attn2": "self" if block.switch_temporal_ca_to_sa else "cross",
        }
        for attention, kind in kinds.items():
            if getattr(block, attention) is not None:
                names.append(f"diffusion_model.{path}.{attention}.forward")
                model.add_object_patch(names[-1], _telling(model.get_model_object(names[-1]), kind))
    return tuple(names)


def _telling(forward: MethodType | Callable[..., Any], kind: str) -> Callable[..., Any]:
    @wraps(forward)
    def telling(*args: Any, transformer_options: dict[str, Any] = {}, **kwargs: Any) -> Any:
        return forward(*args, transformer_options={**transformer_options, KIND: kind}, **kwargs)

    return telling
