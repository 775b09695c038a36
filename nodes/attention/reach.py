"""Which attention of ComfyUI's networks an override does not reach by itself, and how each is reached. ComfyUI's internals.

ComfyUI hands `transformer_options`, and the override in them, to the attention of most networks. The rest is in the tables
below, a line a network: tests/nodes/attention/test_compatibility.py runs every network of ComfyUI against them.
"""

import logging
import re
from collections.abc import Callable
from contextlib import contextmanager
from contextvars import ContextVar
from types import SimpleNamespace

import torch
from comfy.patcher_extension import CallbacksMP

from .rebinding import rebound, rebound_function

KEY = "entropy_guidance_attention"
# In transformer options: (i, n) where attention runs on part i of n of the batch alone.
PART = "entropy_guidance_part"
# In transformer options: set where the network itself gives attention no options, and so no other node's override.
REACHED = "entropy_guidance_reached"
# In transformer options: set for the further steps of a descent, whose rows are all weak ones.
FURTHER_STEP = "entropy_guidance_further_step"

# Modules whose calls of `optimized_attention` get no options, by the name of their network's class.
WITHOUT_OPTIONS = {
    "comfy.ldm.pixart.pixartms.PixArtMS": r"blocks\.\d+\.(attn|cross_attn)",
    "comfy.ldm.hydit.models.HunYuanDiT": r"blocks\.\d+\.(attn1|attn2)",
    "comfy.ldm.ace.ace_step15.AceStepConditionGenerationModel": r"decoder\.layers\.\d+\.(self_attn|cross_attn)",
    "comfy.ldm.ernie.model.ErnieImageModel": r"layers\.\d+\.self_attention",
    "comfy.ldm.hunyuan3dv2_1.hunyuandit.HunYuanDiTPlain": r"blocks\.\d+\.(attn1|attn2)",
    "comfy.ldm.wan.model.WanModel_S2V": r"audio_injector\.injector\.\d+",
    "comfy.ldm.wan.model_animate.AnimateWanModel": r"face_adapter\.fuser_blocks\.\d+",
    "comfy.ldm.wan.model_wandancer.WanDancerModel": r"music_injector\.injector\.\d+",
    "comfy.ldm.wan.ar_model.CausalWanModel": r"blocks\.\d+(\.(self_attn|cross_attn))?",
}
# The same of modules that ask `optimized_attention_for_device` for the function.
WITHOUT_OPTIONS_FOR_DEVICE = {
    "comfy.ldm.minimax_music.dit.MiniMaxMusic3DiT": r"diffusion_transformer\.transformer\.layers\.\d+\.self_attn",
}
# Modules that hand a packed batch to `optimized_var_attention`, which runs attention on one part of it at a time.
PART_BY_PART = {"comfy.ldm.seedvr.model.NaDiT": r"blocks\.\d+\.attn"}

# Networks that run the halves of a batch in the other order than they return them.
SWAPS_HALVES = ("comfy.ldm.seedvr.model.NaDiT", "comfy.ldm.hunyuan3dv2_1.hunyuandit.HunYuanDiTPlain")

# Attention without a softmax has no temperature.
LINEAR = {
    "comfy.ldm.ace.model.ACEStepTransformer2DModel": "its self-attention is linear, which has no temperature: ERG changes "
    "its cross-attention alone",
}

_current: ContextVar[dict | None] = ContextVar("transformer_options", default=None)  # each thread has its own
# The same for compiled code, which cannot read a ContextVar. ComfyUI tells torch.compile to guard nothing of this name.
transformer_options_of_compiled_code: dict[str, dict | None] = {"now": None}


def name_of(network: torch.nn.Module) -> str:
    return f"{type(network).__module__}.{type(network).__qualname__}"


def reach_attention(model) -> None:
    """Adds to a ModelPatcher whatever its network needs, so that every attention gets to an override.

    The patches do nothing by themselves, and nothing outside of `options_in_reach`.
    """
    if KEY in model.attachments:
        return
    if note := LINEAR.get(name_of(model.model.diffusion_model)):
        logging.info("Entropy Rectifying Guidance on %s: %s.", type(model.model.diffusion_model).__name__, note)
    model.set_attachments(KEY, _patch(model))
    model.add_callback_with_key(CallbacksMP.ON_CLONE, KEY, _follow)


@contextmanager
def options_in_reach(options: dict, compiled: bool = False):
    """Within, attention that gets no transformer options from its network takes these."""
    options = {**options, REACHED: True}
    token = _current.set(options)
    transformer_options_of_compiled_code["now"] = options if compiled else None
    try:
        yield
    finally:
        transformer_options_of_compiled_code["now"] = None
        _current.reset(token)


def _options_in_reach() -> dict | None:
    return transformer_options_of_compiled_code["now"] if torch.compiler.is_compiling() else _current.get()


def order_of_rows(network: torch.nn.Module, weak: tuple[bool, ...], rows: int) -> tuple[bool, ...]:
    """For a batch's chunks of rows whether they are weak, in the order in which the network runs them.

    One label stands for equally many rows: of a chunk, or for networks of an order of their own one row.
    """
    if name_of(network) not in SWAPS_HALVES or rows % len(weak):
        return weak
    labels = tuple(label for label in weak for _ in range(rows // len(weak)))
    second = rows // 2  # torch.chunk makes the first half the larger one
    return labels[second:] + labels[:second]


def is_new_call(options: dict) -> bool:
    """False for what belongs to an attention call that has been seen: further parts of it, further steps of a descent."""
    return options.get(PART, (0, 1))[0] == 0 and FURTHER_STEP not in options


def labels_of_part(options: dict, labels: tuple) -> tuple:
    """Of an attention call's rows, whether they are weak: all labels, or the one to which its part of the batch belongs."""
    if FURTHER_STEP in options:
        return (True,)
    part, count = options.get(PART, (0, 1))
    return labels if count == 1 else (labels[part * len(labels) // count],)


def _patch(model) -> tuple[str, ...]:
    """Adds the patches of a network, and returns the names of what they replace."""
    network, names = model.model.diffusion_model, []
    for table, name, make in (
        (WITHOUT_OPTIONS, "optimized_attention", _with_current_options),
        (WITHOUT_OPTIONS_FOR_DEVICE, "optimized_attention_for_device", _choosing_with_current_options),
        (PART_BY_PART, "optimized_var_attention", _numbering_parts),
    ):
        if pattern := table.get(name_of(network)):
            for path, _ in network.named_modules():
                if re.fullmatch(pattern, path):
                    forward = f"diffusion_model.{path}.forward"
                    model.add_object_patch(forward, rebound(model.get_model_object(forward), name, make))
                    names.append(forward)
    return tuple(names)


def _follow(original, clone) -> None:
    """A clone with another copy of the network (one for each GPU) needs patches that are bound to that copy."""
    if clone.model is original.model:
        return
    for name in clone.get_attachment(KEY):
        clone.object_patches.pop(name, None)
    _patch(clone)


def _with_current_options(attention: Callable) -> Callable:
    def with_options(*args, **kwargs):
        if not kwargs.get("transformer_options"):
            kwargs["transformer_options"] = _options_in_reach()
        return attention(*args, **kwargs)

    return with_options


def _choosing_with_current_options(choose: Callable) -> Callable:
    return lambda *args, **kwargs: _with_current_options(choose(*args, **kwargs))


def _numbering_parts(var_attention: Callable) -> Callable:
    def numbering(*args, cu_seqlens_q, **kwargs):
        parts = iter(range(len(cu_seqlens_q) - 1))
        run = rebound_function(var_attention.now(), "_attention", _namespace_of_parts)
        token = _parts.set((parts, len(cu_seqlens_q) - 1))
        try:
            return run(*args, cu_seqlens_q=cu_seqlens_q, **kwargs)
        finally:
            _parts.reset(token)

    return numbering


_parts: ContextVar = ContextVar("parts")


def _namespace_of_parts(module) -> SimpleNamespace:
    def attention(*args, **kwargs):
        parts, count = _parts.get()
        options = _options_in_reach()
        if options is not None:
            kwargs["transformer_options"] = {**options, PART: (next(parts), count)}
        return module.optimized_attention(*args, **kwargs)

    return SimpleNamespace(optimized_attention=attention)
