"""Which attention of ComfyUI's networks an override does not reach by itself, and how each is reached. ComfyUI's internals.

ComfyUI hands `transformer_options`, and the override in them, to the attention of most networks. The rest is in the tables
below, a line a network: tests/nodes/attention/test_compatibility.py runs every network of ComfyUI against them.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher

from ..sampling.own_branch import Batch
from .object_patches import add_patches
from .rebinding import rebound, rebound_function

KEY = "entropy_guidance_attention"

# What this wing writes into transformer options, for the attention calls of one evaluation:
# Of which rows of the network's input, in the network's own order, the rows of a call are: where a batch is packed.
OWNERS = "entropy_guidance_owners"
# The kind of a call, 'self' or 'cross', where its module tells it.
KIND = "entropy_guidance_kind"
# Set where the network itself gives attention no options, and so no other node's override.
REACHED = "entropy_guidance_reached"
# Set for what belongs to an attention call that was counted: further parts of it, further steps of a descent.
COUNTED = "entropy_guidance_counted"

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
# Modules that pack a batch into sequences (windows) and hand them to `optimized_var_attention`, which runs attention on one
# after the other, or on all of a length at once, in an order of its own.
PACKED = {"comfy.ldm.seedvr.model.NaDiT": r"blocks\.\d+\.attn"}

# Networks that run the halves of a batch in the other order than they return them.
SWAPS_HALVES = ("comfy.ldm.seedvr.model.NaDiT", "comfy.ldm.hunyuan3dv2_1.hunyuandit.HunYuanDiTPlain")

# Networks of a single row: ComfyUI sets their conditions apart because they differ, which copies of one do not.
ONE_ROW = ("comfy.ldm.minimax.model.MiniMaxH3Model",)

# Attention without a softmax has no temperature.
LINEAR = {
    "comfy.ldm.ace.model.ACEStepTransformer2DModel": "its self-attention is linear, which has no temperature: ERG changes "
    "its cross-attention alone",
}

# The options of the evaluation that is running, for attention to which its network gives none. Each thread has its own.
_current: ContextVar[dict[str, Any] | None] = ContextVar("transformer_options", default=None)
# The same for compiled code, which cannot read a ContextVar. ComfyUI tells torch.compile to guard nothing of this name.
transformer_options_of_compiled_code: dict[str, dict[str, Any] | None] = {"now": None}


def name_of(network: torch.nn.Module) -> str:
    return f"{type(network).__module__}.{type(network).__qualname__}"


def reach_attention(model: ModelPatcher) -> None:
    """Adds to a ModelPatcher whatever its network needs, so that every attention gets to an override.

    The patches do nothing by themselves, and nothing outside of `options_in_reach`.
    """
    network = model.model.diffusion_model
    if not isinstance(network, torch.nn.Module):
        raise ValueError(
            f"model: {type(network).__name__} is a compiled engine whose attention cannot be reached. Use the checkpoint "
            "that it was made of."
        )
    add_patches(model, KEY, _patch)


@contextmanager
def options_in_reach(options: dict[str, Any], compiled: bool = False) -> Iterator[None]:
    """Within, attention that gets no transformer options from its network takes these."""
    options = {**options, REACHED: True}
    token = _current.set(options)
    transformer_options_of_compiled_code["now"] = options if compiled else None
    try:
        yield
    finally:
        transformer_options_of_compiled_code["now"] = None
        _current.reset(token)


def _options_in_reach() -> dict[str, Any] | None:
    return transformer_options_of_compiled_code["now"] if torch.compiler.is_compiling() else _current.get()


def batch_of(network: torch.nn.Module) -> Batch:
    """What a network takes as a batch."""
    if name_of(network) in ONE_ROW:
        return Batch.ONE_ROW
    return Batch.TWO_HALVES if name_of(network) in SWAPS_HALVES else Batch.ANY


def order_of_rows(network: torch.nn.Module, labels: tuple[Any, ...]) -> tuple[Any, ...]:
    """The labels of a batch's rows in the order in which the network runs them."""
    if batch_of(network) is not Batch.TWO_HALVES:
        return labels
    second = len(labels) // 2  # torch.chunk makes the first half the larger one
    return labels[second:] + labels[:second]


def order_of_partners(network: torch.nn.Module, partners: tuple[int, ...]) -> tuple[int, ...]:
    """The same of numbers of rows, which are those of the network's order then."""
    order = order_of_rows(network, tuple(range(len(partners))))
    return tuple(order.index(partners[row]) for row in order)


def _patch(model: ModelPatcher) -> tuple[str, ...]:
    """Adds the patches of a network, and returns the names of what they replace."""
    network, names = model.model.diffusion_model, []
    for table, meanings in MEANINGS:
        if pattern := table.get(name_of(network)):
            for path, _ in network.named_modules():
                if re.fullmatch(pattern, path):
                    names.append(f"diffusion_model.{path}.forward")
                    forward = model.get_model_object(names[-1])
                    for name, make in meanings.items():
                        forward = rebound(forward, name, make)
                    model.add_object_patch(names[-1], forward)
    return tuple(names)


def _with_current_options(attention: Callable[..., Any]) -> Callable[..., Any]:
    def with_options(*args: Any, **kwargs: Any) -> torch.Tensor:
        if not kwargs.get("transformer_options"):
            kwargs["transformer_options"] = _options_in_reach()
        return attention(*args, **kwargs)

    return with_options


def _choosing_with_current_options(choose: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: _with_current_options(choose(*args, **kwargs))


_owners: ContextVar[list[int]] = ContextVar("owners")  # of each token of the packed batch that attention gets next


def _keeping_owners(repeat_concat_idx: Callable[..., Any]) -> Callable[..., Any]:
    """The function that packs the tokens of a batch into windows; it tells whose they are in the same way."""

    def keeping(
        video_lengths: torch.Tensor, text_lengths: torch.Tensor, windows: torch.Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        pack, *others = repeat_concat_idx(video_lengths, text_lengths, windows, *args, **kwargs)
        if _options_in_reach() is None:
            return pack, *others
        rows = torch.arange(len(text_lengths), device=video_lengths.device)
        of_video = rows.repeat_interleave(windows.to(rows)).repeat_interleave(video_lengths)
        owners = pack(of_video, rows.repeat_interleave(text_lengths.to(rows))).tolist()

        def packing(*tokens: torch.Tensor) -> Any:
            _owners.set(owners)
            return pack(*tokens)

        return packing, *others

    return keeping


def _of_owners(var_attention: Any) -> Callable[..., Any]:
    """The attention of a packed batch, each of whose calls says whose sequences it gets."""

    def of_owners(*args: Any, cu_seqlens_q: Any, **kwargs: Any) -> Any:
        options = _options_in_reach()
        if options is None:
            return var_attention(*args, cu_seqlens_q=cu_seqlens_q, **kwargs)
        owners = _owners.get()
        _sequences.set(iter([owners[start] for start in cu_seqlens_q[:-1]]))
        _further.set({})
        run = rebound_function(var_attention.now(), "_attention", _namespace_of_owners)
        return run(*args, cu_seqlens_q=cu_seqlens_q, **kwargs)

    return of_owners


_sequences: ContextVar[Iterator[int]] = ContextVar("sequences")  # the owners of those that attention has not got yet
_further: ContextVar[dict[str, Any]] = ContextVar("further")  # options of the next part of what is one attention call


def _namespace_of_owners(module: ModuleType) -> SimpleNamespace:
    def attention(q: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        rows = (q.peek() if hasattr(q, "peek") else q).shape[0]
        of_call = {OWNERS: tuple(islice(_sequences.get(), rows)), **_further.get()}
        _further.set({COUNTED: True})
        options = _options_in_reach()
        assert options is not None  # `of_owners` calls it only then
        kwargs["transformer_options"] = {**options, **of_call}
        return module.optimized_attention(q, *args, **kwargs)

    return SimpleNamespace(**{**vars(module), "optimized_attention": attention})


# What the global names that a module's code calls mean in the tables above.
MEANINGS = (
    (WITHOUT_OPTIONS, {"optimized_attention": _with_current_options}),
    (WITHOUT_OPTIONS_FOR_DEVICE, {"optimized_attention_for_device": _choosing_with_current_options}),
    (PACKED, {"repeat_concat_idx": _keeping_owners, "optimized_var_attention": _of_owners}),
)
