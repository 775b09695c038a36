"""Which attention call belongs to which layer of a diffusion network. ComfyUI's internals are touched here.

ComfyUI calls `transformer_options["optimized_attention_override"]` for each attention. Most networks tell it their
block (`block`, `block_type`, `block_index` in the same options); the others only keep an order of calls. Both are
learnt from one forward pass the first time that a network is sampled, so that no table of architectures is needed.

Modules that read the condition before it meets the picture (text refiners and poolers) are no layers: ERG leaves them as
they are; a flatter reading of the prompt is the text encoder's matter (C-ERG).
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import TimestepEmbedSequential
from torch.utils.hooks import RemovableHandle

from .network_call import OVERRIDE, NetworkCall
from .reach import COUNTED, OWNERS

READERS_OF_THE_CONDITION = re.compile(
    r"context_refiner|siglip_refiner|ref_image_refiner|token_refiner|text_transformer_blocks|txtfusion|llm_adapter"
)
# The same of reference pictures: packed in one sequence.
READERS_OF_PICTURES = re.compile(r"visual\.")
BLOCK_KEYS = ("block", "block_type", "block_index")
# Whose entries are blocks. A U-Net runs the layers of its sequences itself, one by one.
LISTS_OF_BLOCKS = (torch.nn.ModuleList, torch.nn.ModuleDict, TimestepEmbedSequential)


# A block by the key that it tells, or by the path of its module.
Name = tuple[Any, ...] | str


def block_key(options: dict[str, Any]) -> tuple[Any, ...] | None:
    """What the network says of the block that is running, or None where it says nothing."""
    key = tuple(options.get(name) for name in BLOCK_KEYS)
    return None if key == (None, None, None) else key


@dataclass(frozen=True)
class RowsOfCalls:
    """How many rows attention gets for each row of the network's input, in the calls of one layer.

    counts: the numbers seen; attention over the frames of a video that are rows (SVD) may have no whole number. places: of
    those rows, all their queries together, which a node that cuts pictures into tiles of attention (HyperTile) leaves as many.
    """

    counts: frozenset[float]
    places: frozenset[float]

    def fit(self, q: torch.Tensor, rows: int, at_known_size: bool) -> bool:
        """Whether queries [B, ..., N, D] are such rows, each input row's or each condition's one after the other.

        rows: of the input. at_known_size: whether the input has the size at which these were seen.
        """
        count = q.shape[0] / rows
        return count in self.counts or at_known_size and count.is_integer() and count * q.shape[-2] in self.places


@dataclass(frozen=True)
class LayerMap:
    """The layers of a network in order of execution.

    numbers: layer number of each block key, and of the name of each block that tells none.
    names: the name of each attention call of a forward pass: its block's key, or its block's name where it tells none.
    rows: of each layer's calls; none for a layer whose batch is packed. size: the shape of the input's rows.
    strangers: keys that other nodes' calls were seen with, which are no layers.
    ends: for each block that ran, by its name, how many attention calls of the pass were over when it ended for good.
    """

    numbers: dict[Name, int]
    names: tuple[Name, ...]
    rows: dict[int, RowsOfCalls] = field(default_factory=dict)
    size: tuple[int, ...] = ()
    strangers: set[tuple[Any, ...]] = field(default_factory=set)
    ends: dict[str, int] = field(default_factory=dict)

    def blocks_before(self, selected: frozenset[int]) -> tuple[str, ...]:
        """The outermost blocks that have ended for good when attention is first called in one of these layers.

        Without those that read the condition alone, which cost little and have rows of their own kind.
        """
        first = next((call for call, layer in enumerate(self.of_calls) if layer in selected), 0)
        before = {name for name, calls in self.ends.items() if calls <= first and not READERS_OF_PICTURES.match(name)}
        before = {name for name in before if not _reads_the_condition(name)}
        return tuple(name for name in self.ends if name in before and before.isdisjoint(_parents(name)))

    @cached_property
    def of_calls(self) -> tuple[int | None, ...]:
        """Layer number, or None, of each attention call of a forward pass."""
        return tuple(self.numbers.get(name) for name in self.names)

    @cached_property
    def of_unkeyed_calls(self) -> tuple[int | None, ...]:
        """The same of those calls that come without a block key."""
        return tuple(self.numbers.get(name) for name in self.names if isinstance(name, str))

    @cached_property
    def keys(self) -> frozenset[tuple[Any, ...]]:
        return frozenset(name for name in self.names if not isinstance(name, str))

    @cached_property
    def sections(self) -> tuple[str | None, ...]:
        """For each layer its U-Net section ('input', 'middle', 'output') or None."""
        return tuple(name[0][0] if isinstance(name, tuple) and name[0] else None for name in self.numbers)

    def fits_unkeyed(self, calls: int, selected: frozenset[int]) -> bool:
        """Whether a forward pass of so many calls without a block key is one that this map describes."""
        return calls == len(self.of_unkeyed_calls) or selected.isdisjoint(self.of_unkeyed_calls)


class CallReader:
    """Tells the layer of each attention call of one forward pass."""

    def __init__(self, layers: LayerMap) -> None:
        self.layers, self.unkeyed = layers, 0
        self.unknown: set[tuple[Any, ...]] = set()  # keys that the map has never seen

    def __call__(self, options: dict[str, Any]) -> int | None:
        """The layer; None for a call outside of the layers (a reader of the prompt, another node's attention)."""
        key = block_key(options)
        if key is not None:
            if key not in self.layers.keys and key not in self.layers.strangers:
                self.unknown.add(key)
            return self.layers.numbers.get(key)
        if COUNTED not in options:
            self.unkeyed += 1
        of_calls, call = self.layers.of_unkeyed_calls, self.unkeyed - 1
        return of_calls[call] if call < len(of_calls) else None


def structure_of(network: torch.nn.Module) -> tuple[Any, ...]:
    """The lists of blocks of a network. Other nodes put other lists in their place, for a clone or for an evaluation."""
    lists = ((name, module) for name, module in network.named_modules() if isinstance(module, torch.nn.ModuleList))
    return tuple((name, *map(type, blocks)) for name, blocks in lists)


# For each network, by its structure: its maps by the blocks that other nodes replace in it and, where passes of one network
# make other calls, by the shapes of what it gets; None for the shapes of the first pass.
_known: WeakKeyDictionary[torch.nn.Module, dict[tuple[Any, ...], dict[tuple[Any, ...], LayerMap]]] = WeakKeyDictionary()


def layer_map(call: NetworkCall, structure: tuple[Any, ...], *, renew: bool = False) -> LayerMap:
    """The layer map of a diffusion network; the first call for a network costs one evaluation of it.

    A map for blocks that other nodes replace costs one more evaluation, for a network that tells no keys, and keeps the
    numbers that layers have without those nodes. renew: learn the map of passes like this call again.
    Raises RuntimeError where no attention of the network passes through ComfyUI's override.
    """
    known = _known.setdefault(call.network, {}).setdefault(structure, {})
    whole = _find_or_learn(known, frozenset(), call, renew, partial(_census, call))
    replaced = replaced_blocks(call.options)
    # Where all blocks tell their keys, what is left of them tells them too.
    if not replaced or not whole.of_unkeyed_calls:
        return whole
    return _find_or_learn(known, replaced, call, renew, partial(_census, call, whole))


def known_map(network: torch.nn.Module) -> LayerMap:
    """The map of a network that was sampled before, as it is without other nodes."""
    return _known[network][structure_of(network)][frozenset(), None]


def _find_or_learn(
    known: dict[tuple[Any, ...], LayerMap],
    replaced: frozenset[tuple[str, Any]],
    call: NetworkCall,
    renew: bool,
    learn: Callable[..., Any],
) -> LayerMap:
    usual = known.get((replaced, None))
    if not renew and usual is not None and len(known) == len({of for of, _ in known}):
        return usual  # spares looking at shapes as long as all passes are alike
    found = None if renew else known.get((replaced, call.shapes), usual)
    if found is None:
        found = learn()
        known[replaced, call.shapes if usual is not None else None] = found
    return found


def replaced_blocks(options: dict[str, Any]) -> frozenset[tuple[str, Any]]:
    """The blocks that other nodes replace (skip layer guidance, for one), by ComfyUI's names for them."""
    return frozenset((kind, name) for kind, names in options.get("patches_replace", {}).items() for name in names)


def _census(call: NetworkCall, whole: LayerMap | None = None) -> LayerMap:
    """Learns a map from one forward pass. whole: the map without the blocks that other nodes replace, where they are to run."""
    calls: list[tuple[tuple[Any, ...] | None, str | None, tuple[float, float] | None]] = []
    running: list[str] = []
    ends: dict[str, int] = {}
    network, (batch, *size) = call.network, call.inputs[0].shape

    def record(
        attention: Callable[..., torch.Tensor],
        q: torch.Tensor,
        *args: Any,
        transformer_options: dict[str, Any],
        **kwargs: Any,
    ) -> torch.Tensor:
        if COUNTED not in transformer_options:
            rows = None if OWNERS in transformer_options else (q.shape[0] / batch, q.shape[0] / batch * q.shape[-2])
            calls.append((block_key(transformer_options), running[0] if running else None, rows))
        return attention(q, *args, transformer_options=transformer_options, **kwargs)

    with _BlockTrail(network, running, lambda block: ends.update({block: len(calls)})):
        call.run_without_nodes({OVERRIDE: record}, replacing=whole is not None)
    if not calls and whole is None:
        raise RuntimeError(
            f"The attention of {type(network).__name__} cannot be reached: this model does not pass it through "
            "ComfyUI's attention override. Nothing was changed; take the node out for this model."
        )
    # A layer is a block that tells its key, or else an entry of a module list, or else a call of its own.
    names = tuple(key or name or f"call {i}" for i, (key, name, _) in enumerate(calls))
    numbers = whole.numbers if whole else _number(names)
    return LayerMap(numbers, names, _rows(numbers, names, [rows for *_, rows in calls]), tuple(size), ends=ends)


def _rows(
    numbers: dict[Name, int], names: tuple[Name, ...], of_calls: list[tuple[float, float] | None]
) -> dict[int, RowsOfCalls]:
    of_layer = defaultdict(set)
    for name, rows in zip(names, of_calls):
        if rows is not None and name in numbers:
            of_layer[numbers[name]].add(rows)
    return {layer: RowsOfCalls(*map(frozenset, zip(*seen))) for layer, seen in of_layer.items()}


def _number(names: tuple[Name, ...]) -> dict[Name, int]:
    return {name: i for i, name in enumerate(n for n in dict.fromkeys(names) if not _reads_the_condition(n))}


def _reads_the_condition(name: Name) -> bool:
    return isinstance(name, str) and READERS_OF_THE_CONDITION.search(name) is not None


def blocks_of(network: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """The names and modules of whatever may be a block, inner ones and such as never run among them."""
    for name, blocks in network.named_modules():
        if isinstance(blocks, LISTS_OF_BLOCKS):
            yield from ((f"{name}.{key}", block) for key, block in blocks.named_children())


def _parents(name: str) -> Iterator[str]:
    while name := name.rpartition(".")[0]:
        yield name


class _BlockTrail:
    """For one forward pass, keeps the names of the running blocks, outermost first. ended: called with each that ends."""

    def __init__(self, network: torch.nn.Module, running: list[str], ended: Callable[[str], None]) -> None:
        self.network, self.running, self.ended = network, running, ended
        self.handles: list[RemovableHandle] = []

    def __enter__(self) -> None:
        for name, block in blocks_of(self.network):
            enter = block.register_forward_pre_hook(lambda *_, name=name: self.running.append(name))
            leave = block.register_forward_hook(lambda *_: self.ended(self.running.pop()), always_call=True)
            self.handles += [enter, leave]

    def __exit__(self, *_: Any) -> None:
        for handle in self.handles:
            handle.remove()
