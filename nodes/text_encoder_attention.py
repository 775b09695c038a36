"""Gives the self-attention of a CLIP object's text encoders another temperature. ComfyUI's internals are touched here.

ComfyUI hands the attention function down through an encoder's modules as the argument `optimized_attention`. The
innermost modules that take it are the attention layers; an object patch wraps their `forward` for the patched clone
alone: ComfyUI puts it in place when that clone is used and takes it out again for any other.
"""

import inspect
from functools import wraps

import torch

from ..guidance_core.layer_selection import LayerSelection

ATTENTION_ARGUMENT = "optimized_attention"
NOT_TEXT = ("vision", "visual", "audio")  # towers for other inputs inside multimodal encoders


def temper_text_encoders(clip, temperature: float, layers: LayerSelection):
    """A clone of a CLIP object whose text self-attention has its logits multiplied by a temperature.

    The selection applies to each encoder of a CLIP with several (SDXL, SD3, Flux). Raises ValueError, naming the
    encoder, where its attention cannot be reached, and where the selection selects nothing in any of them.
    """
    encoders = _encoders(clip.cond_stage_model)
    for encoder, modules in encoders.items():
        if not modules:
            raise ValueError(
                f"The text encoder '{encoder}' ({type(getattr(clip.cond_stage_model, encoder)).__name__}) cannot be "
                "reached: it does not pass its attention through ComfyUI's attention function. Nothing was changed."
            )
    paths = [modules[i] for modules in encoders.values() for i in sorted(layers.select([None] * len(modules)))]
    if not paths:
        counts = ", ".join(f"{encoder} has {len(modules)} layers" for encoder, modules in encoders.items())
        raise ValueError(f"layers = '{layers.text}' selects nothing: {counts}, numbered from 0.")
    clone = clip.clone()
    for path in paths:
        forward = clone.patcher.get_model_object(f"{path}.forward")
        clone.patcher.add_object_patch(f"{path}.forward", _tempered(forward, temperature))
    return clone


def _encoders(model: torch.nn.Module) -> dict[str, list[str]]:
    """For each text encoder of a CLIP object, the paths of its attention modules in order of execution."""
    found = {}
    for name, encoder in model.named_children():
        if hasattr(encoder, "transformer"):  # ComfyUI's SDClipModel; the rest are projections
            found[name] = [f"{name}.{path}" for path in _attention_modules(encoder)]
    if not found:
        raise ValueError(f"{type(model).__name__} holds no text encoder that this node knows. Nothing was changed.")
    return found


def _attention_modules(encoder: torch.nn.Module) -> list[str]:
    paths = [
        path for path, module in encoder.named_modules()
        if ATTENTION_ARGUMENT in inspect.signature(type(module).forward).parameters
        and not any(part.startswith(NOT_TEXT) for part in path.split("."))
    ]  # fmt: skip
    return [path for path in paths if not any(other.startswith(f"{path}.") for other in paths)]


def _tempered(forward, temperature: float):
    """`forward` with the queries of its attention function scaled: q·k is tempered, a bias in the mask is not."""
    signature = inspect.signature(forward)

    @wraps(forward)
    def tempered_forward(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        attention = bound.arguments[ATTENTION_ARGUMENT]
        bound.arguments[ATTENTION_ARGUMENT] = lambda q, *rest, **more: attention(q * temperature, *rest, **more)
        return forward(*bound.args, **bound.kwargs)

    return tempered_forward
