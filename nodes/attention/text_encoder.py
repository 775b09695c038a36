"""Gives the self-attention of a CLIP object's text encoders another temperature. ComfyUI's internals are touched here.

Most encoders hand the attention function down through their modules as the argument `optimized_attention`: the
innermost modules that take it are the attention layers. The others call attention by a global name and are in the table
`INLINE`. Either way an object patch takes the place of the layer's `forward` for the patched clone alone: ComfyUI puts
it in when that clone is used and takes it out again for any other. All encoders that ComfyUI can build are held against
this in tests/nodes/attention/test_text_encoder_families.py.
"""

import inspect
import logging
import re
from collections.abc import Callable
from functools import cache, partial, wraps
from types import SimpleNamespace
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP

from ...guidance_core.attention_energy import AttentionEnergy
from ...guidance_core.layer_selection import LayerSelection
from ..feedback import Feedback
from .flatness import factor_of_all_heads
from .reach import name_of
from .rebinding import rebound

ATTENTION_ARGUMENT = "optimized_attention"
CALLBACK_KEY = "entropy_guidance_clip"
NOT_TEXT = ("vision", "visual", "audio")  # towers for other inputs inside multimodal encoders


def _on_scaled_queries(attention: Callable[..., Any], energy: AttentionEnergy) -> Callable[..., Any]:
    """An attention function whose q·k is tempered; a bias in the mask, such as a position's, is not."""

    def on_scaled_queries(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        heads: int,
        mask: torch.Tensor | None = None,
        *rest: Any,
        **more: Any,
    ) -> Any:
        factor: float | torch.Tensor | None = energy.fixed_temperature
        if factor is None:
            factor = factor_of_all_heads(energy.flatness, q, k, heads, mask, more.get("scale"))
        return attention(q * factor, k, v, heads, mask, *rest, **more)

    return on_scaled_queries


def _of_chosen_function(choose: Callable[..., Any], energy: AttentionEnergy) -> Callable[..., Any]:
    """`optimized_attention_for_device`: what it returns is the attention function."""
    return lambda *args, **kwargs: _on_scaled_queries(choose(*args, **kwargs), energy)


def _with_sinks(attention: Callable[..., Any], energy: AttentionEnergy) -> Callable[..., Any]:
    """gpt-oss's attention, which has one more key in each head: a sink, with a logit of its own that is not tempered."""

    def with_sinks(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        sinks: torch.Tensor,
        mask: torch.Tensor | None,
        heads: int,
        *rest: Any,
    ) -> Any:
        factor: float | torch.Tensor | None = energy.fixed_temperature
        if factor is None:
            keys = torch.nn.functional.pad(k, (0, 0, 0, 1))
            bias = q.new_zeros(q.shape[-2], k.shape[-2]) if mask is None else mask[..., : k.shape[-2]]
            bias = bias.expand(*q.shape[:-1], -1)
            bias = torch.cat([bias, sinks.to(bias).view(-1, 1, 1).expand(*q.shape[:-1], 1)], -1)
            factor = factor_of_all_heads(energy.flatness, q, keys, heads, bias)
        return attention(q * factor, k, v, sinks, mask, heads, *rest)

    return with_sinks


def _of_capped_logits(torch_module: Any, energy: AttentionEnergy) -> SimpleNamespace:
    """T5Gemma's logits are what `torch.tanh` caps; the rest of `torch` as it is.

    The temperature multiplies what enters the softmax: after the cap, before the mask. On the queries it would come
    before the cap, which is the same for small logits, but flattens large ones less and sharpens none beyond the cap.
    """
    temperature = energy.fixed_temperature
    if temperature is None:
        raise ValueError(
            f"ERG Text Encoder (C-ERG): flatness = {energy.flatness} cannot be measured in T5Gemma, which caps its logits "
            "before they are masked. Set flatness to -1 and use temperature."
        )
    return SimpleNamespace(**{**vars(torch_module), "tanh": lambda x: torch_module.tanh(x) * temperature})


# Attention layers without that argument: the global name that their `forward` calls, and its tempered meaning.
INLINE = {
    "comfy.text_encoders.gemma4.Gemma4Attention": ("optimized_attention_for_device", _of_chosen_function),
    "comfy.text_encoders.gpt_oss.GptOssAttention": ("_attention_with_sinks", _with_sinks),
    "comfy.text_encoders.sa3.T5GemmaAttention": ("torch", _of_capped_logits),
}

# Text encoders that are a network themselves; the others of ComfyUI have it in `transformer`. MiniMax Music 3's also writes
# the song, a token at a time: on GPUs for which ComfyUI has a faster function for that, ERG changes the prompt's reading alone.
WITHOUT_TRANSFORMER = ("comfy.text_encoders.minimax_music.MiniMaxMusic3TEModel",)


def temper_text_encoders(clip: Any, energy: AttentionEnergy, layers: LayerSelection, feedback: Feedback) -> Any:
    """A clone of a CLIP object whose text self-attention has its logits multiplied by a temperature.

    The temperature is the energy's, or for a flatness what that takes in each text, layer and head, measured where it is used.
    The selection applies to each encoder of a CLIP with several (SDXL, SD3, Flux). feedback: of the node. Raises ValueError,
    naming the encoder, where its attention cannot be reached, and where the selection selects nothing in any of them.
    """
    encoders = _encoders(clip.cond_stage_model)
    chosen = {encoder: layers.select([None] * len(modules)) for encoder, modules in encoders.items()}
    paths = [modules[i] for encoder, modules in encoders.items() for i in sorted(chosen[encoder])]
    if not paths:
        counts = ", ".join(f"{encoder} has {len(modules)} layers" for encoder, modules in encoders.items())
        raise ValueError(f"layers = '{layers.text}' selects nothing: {counts}, numbered from 0.")
    if clip.patcher.model is not clip.cond_stage_model:
        raise ValueError(
            "This CLIP holds two copies of its text encoder and ComfyUI runs the one that cannot be patched. Take out "
            "the node before this one that makes the copy (Set CLIP Hooks, Select CLIP Device), or start ComfyUI with "
            "--disable-dynamic-vram."
        )
    clone = clip.clone()
    _patch(clone.patcher, paths, energy)
    clone.patcher.add_callback_with_key(CallbacksMP.ON_CLONE, CALLBACK_KEY, partial(_follow, paths, energy))
    feedback.say(", ".join(f"{len(chosen[name])} of {len(encoders[name])} layers of {name}" for name in encoders))
    return clone


def _patch(patcher: ModelPatcher, paths: list[str], energy: AttentionEnergy) -> None:
    for path in paths:
        forward = patcher.get_model_object(f"{path}.forward")
        inline = INLINE.get(name_of(patcher.get_model_object(path)))
        tempered = rebound(forward, inline[0], _at(energy, inline[1])) if inline else _tempered(forward, energy)
        patcher.add_object_patch(f"{path}.forward", tempered)


@cache
def _at(energy: AttentionEnergy, temper: Callable[..., Any]) -> Callable[..., Any]:
    """`temper` for one energy; the same object each time, so that all layers share one rebound function."""
    return lambda value: temper(value, energy)


def _follow(paths: list[str], energy: AttentionEnergy, original: Any, clone: Any) -> None:
    """Where a clone of the patched CLIP gets another copy of the text encoder, that copy needs patches of its own."""
    if clone.model is original.model:
        return
    for name in (f"{path}.forward" for path in paths):
        if clone.object_patches.get(name) is original.object_patches.get(name):  # still bound to the first copy
            clone.object_patches.pop(name, None)
    _patch(clone, paths, energy)
    logging.warning(
        "ERG Text Encoder (C-ERG): a node after it gave the CLIP a second copy of its text encoder (Set CLIP Hooks, "
        "Select CLIP Device). ComfyUI 0.30 goes on to encode with the first copy, where neither ERG nor LoRA hooks take "
        "effect; --disable-dynamic-vram avoids the copy."
    )


def _encoders(model: torch.nn.Module) -> dict[str, list[str]]:
    """For each text encoder of a CLIP object, the paths of its attention modules in order of execution.

    Raises ValueError where there is none, or one whose attention is not known.
    """
    found = {}
    for prefix, encoder in (("", model), *((f"{name}.", child) for name, child in model.named_children())):
        # ComfyUI's SDClipModel and its like; the rest are projections.
        if hasattr(encoder, "transformer") or name_of(encoder) in WITHOUT_TRANSFORMER:
            name = prefix.rstrip(".") or type(encoder).__name__
            found[name] = [f"{prefix}{path}" for path in _attention_modules(encoder)]
            if not found[name]:
                raise ValueError(
                    f"The text encoder '{name}' ({type(encoder).__name__}) cannot be reached: it has no attention that "
                    "this node knows. Nothing was changed."
                )
    if not found:
        raise ValueError(
            f"{type(model).__name__} holds no text encoder that this node knows; its prompts may be read by the "
            "diffusion model itself. Nothing was changed."
        )
    return found


def _attention_modules(encoder: torch.nn.Module) -> list[str]:
    paths = [
        path for path, module in encoder.named_modules()
        if (name_of(module) in INLINE or ATTENTION_ARGUMENT in inspect.signature(type(module).forward).parameters)
        and not any(part.startswith(NOT_TEXT) for part in path.split("."))
    ]  # fmt: skip
    # Where one block of a list hands the function on, it is the block's attention that counts, and a block that does
    # not (Qwen3.5 alternates with linear attention, which has no temperature) is no layer.
    inner = {_pattern(path) for path in paths}
    return [path for path in paths if not any(other.startswith(f"{_pattern(path)}.") for other in inner)]


def _pattern(path: str) -> str:
    """A module's path without the numbers of its blocks."""
    return re.sub(r"\d+", "#", path)


def _tempered(forward: Callable[..., Any], energy: AttentionEnergy) -> Callable[..., Any]:
    """`forward` with the attention function that it is given tempered."""
    signature = inspect.signature(forward)

    @wraps(forward)
    def tempered_forward(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        attention = bound.arguments[ATTENTION_ARGUMENT]
        bound.arguments[ATTENTION_ARGUMENT] = _on_scaled_queries(attention, energy)
        return forward(*bound.args, **bound.kwargs)

    return tempered_forward
