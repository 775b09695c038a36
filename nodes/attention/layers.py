"""Which attention call belongs to which layer of a diffusion network. ComfyUI's internals are touched here.

ComfyUI calls `transformer_options["optimized_attention_override"]` for each attention. Most networks tell it their
block (`block`, `block_type`, `block_index` in the same options); the others only keep an order of calls. Both are
learnt from one forward pass the first time that a network is sampled, so that no table of architectures is needed.

Modules that read the condition before it meets the picture (text refiners and poolers) are no layers: ERG leaves them as
they are; a flatter reading of the prompt is the text encoder's matter (C-ERG).
"""

import re
from dataclasses import dataclass
from functools import cached_property, partial
from weakref import WeakKeyDictionary

import torch

from .network_call import OVERRIDE
from .reach import is_new_call

READERS_OF_THE_CONDITION = re.compile(
    r"context_refiner|siglip_refiner|ref_image_refiner|token_refiner|text_transformer_blocks|txtfusion|llm_adapter"
)
BLOCK_KEYS = ("block", "block_type", "block_index")


def block_key(options: dict) -> tuple | None:
    """What the network says of the block that is running, or None where it says nothing."""
    key = tuple(options.get(name) for name in BLOCK_KEYS)
    return None if key == (None, None, None) else key


@dataclass(frozen=True)
class LayerMap:
    """The layers of a network in order of execution.

    numbers: layer number of each block key, and of the name of each block that tells none.
    names: the name of each attention call of a forward pass: its block's key, or its block's name where it tells none.
    """

    numbers: dict[tuple | str, int]
    names: tuple[tuple | str, ...]

    @cached_property
    def layers_of_calls(self) -> tuple[int | None, ...]:
        """Layer number, or None, of each attention call of a forward pass."""
        return tuple(self.numbers.get(name) for name in self.names)

    @cached_property
    def of_call(self) -> tuple[int | None, ...]:
        """The same of those calls that come without a block key."""
        return tuple(self.numbers.get(name) for name in self.names if isinstance(name, str))

    @cached_property
    def sections(self) -> tuple[str | None, ...]:
        """For each layer its U-Net section ('input', 'middle', 'output') or None."""
        return tuple(name[0][0] if isinstance(name, tuple) and name[0] else None for name in self.numbers)

    def fits(self, calls: int, selected: frozenset[int]) -> bool:
        """Whether a forward pass of so many calls without a block key is one that this map describes."""
        return calls == len(self.of_call) or selected.isdisjoint(self.of_call)


class CallReader:
    """Tells the layer of each attention call of one forward pass."""

    def __init__(self, layers: LayerMap):
        self.layers, self.without_key = layers, 0

    def __call__(self, options: dict) -> int | None:
        """The layer; None for a call outside of the layers (a reader of the prompt, another node's attention)."""
        key = block_key(options)
        if key is not None:
            return self.layers.numbers.get(key)
        if is_new_call(options):
            self.without_key += 1
        of_call, call = self.layers.of_call, self.without_key - 1
        return of_call[call] if call < len(of_call) else None


# For each network, by the blocks that other nodes replace in it.
_known: WeakKeyDictionary[torch.nn.Module, dict[frozenset, LayerMap]] = WeakKeyDictionary()


def layer_map(network: torch.nn.Module, forward, replaced: frozenset = frozenset(), *, renew: bool = False) -> LayerMap:
    """The layer map of a diffusion network; the first call for a network costs one evaluation of it.

    forward: forward(options) evaluates the network for given transformer options, forward(options, True) with the blocks
    that other nodes replace; it completes the options. replaced: the names of those blocks. Such a map costs one more
    evaluation, for a network that tells no keys, and keeps the numbers that layers have without other nodes.
    renew: learn the map again.
    Raises RuntimeError where no attention of the network passes through ComfyUI's override.
    """
    known = _known.setdefault(network, {})
    if renew:
        known.clear()
    if frozenset() not in known:
        known[frozenset()] = _census(network, forward)
    if replaced not in known:
        whole = known[frozenset()]
        # Where all blocks tell their keys, what is left of them tells them too.
        known[replaced] = _census(network, partial(forward, replacing=True), whole) if whole.of_call else whole
    return known[replaced]


def replaced_blocks(options: dict) -> frozenset:
    """The blocks that other nodes replace (skip layer guidance, for one), by ComfyUI's names for them."""
    return frozenset((kind, name) for kind, names in options.get("patches_replace", {}).items() for name in names)


def _census(network: torch.nn.Module, forward, whole: LayerMap | None = None) -> LayerMap:
    calls: list[tuple[tuple | None, str | None]] = []
    running: list[str] = []

    def record(attention, *args, transformer_options=None, **kwargs):
        if is_new_call(transformer_options):
            calls.append((block_key(transformer_options), running[0] if running else None))
        return attention(*args, transformer_options=transformer_options, **kwargs)

    with _BlockTrail(network, running):
        forward({OVERRIDE: record})
    if not calls and whole is None:
        raise RuntimeError(
            f"The attention of {type(network).__name__} cannot be reached: this model does not pass it through "
            "ComfyUI's attention override. Nothing was changed; take the node out for this model."
        )
    # A layer is a block that tells its key, or else an entry of a module list, or else a call of its own.
    names = tuple(key or name or f"call {i}" for i, (key, name) in enumerate(calls))
    return LayerMap(whole.numbers if whole else _number(names), names)


def _number(names: tuple[tuple | str, ...]) -> dict[tuple | str, int]:
    return {name: i for i, name in enumerate(n for n in dict.fromkeys(names) if not _reads_the_condition(n))}


def _reads_the_condition(name: tuple | str) -> bool:
    return isinstance(name, str) and READERS_OF_THE_CONDITION.search(name) is not None


class _BlockTrail:
    """For one forward pass, keeps the names of the running blocks (entries of module lists), outermost first."""

    def __init__(self, network: torch.nn.Module, running: list[str]):
        self.network, self.running, self.handles = network, running, []

    def __enter__(self):
        for name, blocks in self.network.named_modules():
            if isinstance(blocks, (torch.nn.ModuleList, torch.nn.ModuleDict)):
                for key, block in blocks.named_children():
                    enter = block.register_forward_pre_hook(
                        lambda *_, block=f"{name}.{key}": self.running.append(block)
                    )
                    leave = block.register_forward_hook(lambda *_: self.running.pop() and None, always_call=True)
                    self.handles += [enter, leave]

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()
