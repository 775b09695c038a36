"""Which attention is self-attention (within the picture) and which is cross-attention (from the picture to the prompt).

The blocks of a U-Net, and of LTX, have a module for each, which says so in the transformer options of its calls; in a U-Net a call
without that is another node's. Elsewhere cross-attention reads a sequence of another length than its queries.
"""

from collections.abc import Callable, Iterator
from functools import wraps
from types import MethodType
from typing import Any

import torch
from comfy.ldm.lightricks.model import CrossAttention as CrossAttentionOfLTX
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .object_patches import add_patches
from .reach import KIND, name_of

KINDS = ("all", "self", "cross")
KEY = "entropy_guidance_kinds"

# Networks whose picture reads the prompt and itself in one attention, and in which keys may be longer than queries: here, or
# with nodes that keep the keys of reference pictures.
JOINT = (
    "comfy.ldm.qwen_image21.model.QwenImage21Transformer2DModel",
    "comfy.ldm.hidream_o1.model.HiDreamO1Transformer",
    "comfy.ldm.cascade.stage_b.StageB",
    "comfy.ldm.cascade.stage_c.StageC",
    "comfy.ldm.flux.model.Flux",
)
# LTX's modules of attention within the video, and within its sound; the others read the prompt, or one the other.
WITHIN_LTX = ("attn1", "audio_attn1")


def tell_kinds(model: ModelPatcher) -> None:
    """Has the attention of a U-Net say its kind. Object patches, which do nothing else."""
    add_patches(model, KEY, _patch)


def kind_of_call(network: torch.nn.Module, q: Tensor, k: Tensor, options: dict[str, Any]) -> str | None:
    """'self' or 'cross', or None for a call of a U-Net that comes from another node."""
    if "transformer_index" in options or KIND in options:  # U-Nets alone count their transformers
        return options.get(KIND)
    return "self" if q.shape[-2] == k.shape[-2] or name_of(network) in JOINT else "cross"


def _patch(model: ModelPatcher) -> tuple[str, ...]:
    names = []
    for path, kind in _kinds_of_modules(model.model.diffusion_model):
        names.append(f"diffusion_model.{path}.forward")
        model.add_object_patch(names[-1], _telling(model.get_model_object(names[-1]), kind))
    return tuple(names)


def _kinds_of_modules(network: torch.nn.Module) -> Iterator[tuple[str, str]]:
    """The paths of attention modules that are of one kind each, and that."""
    for path, module in network.named_modules():
        if isinstance(module, BasicTransformerBlock):
            if module.attn1 is not None:
                yield f"{path}.attn1", "cross" if module.disable_self_attn else "self"
            if module.attn2 is not None:
                yield f"{path}.attn2", "self" if module.switch_temporal_ca_to_sa else "cross"
        elif isinstance(module, CrossAttentionOfLTX):
            yield path, "self" if path.rpartition(".")[2] in WITHIN_LTX else "cross"


def _telling(forward: MethodType | Callable[..., Any], kind: str) -> Callable[..., Any]:
    @wraps(forward)
    def telling(*args: Any, transformer_options: dict[str, Any] = {}, **kwargs: Any) -> Any:
        return forward(*args, transformer_options={**transformer_options, KIND: kind}, **kwargs)

    return telling
