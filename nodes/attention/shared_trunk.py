"""Runs blocks of a diffusion network on some rows of a batch alone, and hands their results on for all. ComfyUI's internals.

Rows of a batch that are twins, with the same numbers in every input, stay twins up to the first layer in which ERG changes
one of them. The blocks before that layer, the trunk, need to run once for both. For one evaluation they get hooks that take
the rows to run out of whatever has one row for each row of the batch, and repeat the block's results. What the network does
between its blocks (ControlNets, skip connections, other nodes' patches) sees all rows. `trunk_sharing.py` says when.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, field, fields, is_dataclass
from functools import lru_cache
from typing import Any

import torch

from .copies import PER_CHUNK
from .reach import order_of_rows

COMPARED = 2**20  # numbers of two rows, evenly spread

# An argument of blocks that is not None where, behind those of the picture, their modulation has rows of time zero for
# reference pictures: one, or as many once more.
REFERENCES_FROM = "timestep_zero_index"


@dataclass(frozen=True)
class RowMap:
    """keep: the rows that run, of all. expand: for each row the place of its own or its twin's among those. chunks: the
    chunks that run, of those in the transformer options."""

    keep: tuple[int, ...]
    expand: tuple[int, ...]
    chunks: tuple[int, ...]

    @classmethod
    def of(cls, network: torch.nn.Module, twins: dict[int, int], chunks: int, rows: int) -> "RowMap":
        """twins: for each chunk that is not to run the one whose rows stand for its own. rows: of all chunks."""
        each = rows // chunks
        ordered = order_of_rows(network, tuple(range(rows)))
        keep = tuple(place for place, row in enumerate(ordered) if row // each not in twins)
        place_of = {ordered[place]: number for number, place in enumerate(keep)}
        stands_for = (twins.get(row // each, row // each) * each + row % each for row in ordered)
        expand = tuple(place_of[row] for row in stands_for)
        return cls(keep, expand, tuple(i for i in range(chunks) if i not in twins))

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Each row that does not run, and the one that stands for it."""
        for row, place in enumerate(self.expand):
            if self.keep[place] != row:
                yield row, self.keep[place]

    @lru_cache(maxsize=32)  # noqa: B019 (a few numbers each)
    @torch.inference_mode(False)
    def index(self, name: str, device: torch.device, folds: int = 1, behind: int = 0) -> torch.Tensor:
        """`keep` or `expand` of rows that are folded, each into several, one after the other. behind: of how many more rows,
        which are shared by all or as many as all."""
        of_rows = getattr(self, name)
        more = of_rows if behind == len(self.expand) else range(behind)
        rows = [row * folds + fold for row in of_rows for fold in range(folds)]
        return torch.tensor([*rows, *(len(self.expand) + row for row in more)], device=device)


@dataclass
class SharedRows:
    """What is shared in one evaluation. trunk: the blocks that run on some rows alone, in their order."""

    trunk: dict[torch.nn.Module, None]
    map: RowMap
    ran: set[torch.nn.Module] = field(default_factory=set)
    # Of the block that is running (none runs within another): how often rows are folded, and options beside their copies.
    _running: tuple[set[int], list[tuple[dict[str, Any], dict[str, Any]]]] | None = None
    # Repeated results of the block before: each with its version and the rows that it was made of.
    _results: dict[int, tuple[torch.Tensor, int, torch.Tensor]] = field(default_factory=dict)

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Within, the trunk's blocks run on some rows alone, in this network: other GPUs have copies of their own.

        By hooks of PyTorch's, for this one evaluation. Object patches go by names, under which another node may put other
        blocks: such a patch would then be taken out of a block that it was not put in.
        """
        hooks = [block.register_forward_pre_hook(self._before, with_kwargs=True) for block in self.trunk]
        hooks += [block.register_forward_hook(self._after) for block in self.trunk]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            self._results.clear()

    @contextmanager
    def comparing(self) -> Iterator[list[torch.Tensor]]:
        """Within, the trunk's blocks run on all rows. Gives what will hold, for each pair of rows in each of their results, how
        far they are from each other, relative to their size (root mean squares)."""
        found: list[torch.Tensor] = []

        def compare(block: torch.nn.Module, args: tuple[Any, ...], results: Any) -> None:
            for tensor in _tensors(results):
                fold, left = divmod(tensor.shape[0], len(self.map.expand))
                if not left and tensor.is_floating_point():
                    rows = tensor.unflatten(0, (len(self.map.expand), fold))
                    found.extend(_distance(rows[row], rows[other]) for row, other in self.map.pairs())

        hooks = [block.register_forward_hook(compare) for block in self.trunk]
        try:
            yield found
        finally:
            for hook in hooks:
                hook.remove()

    def _before(
        self, block: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """What a block gets, of the rows that differ."""
        taken = self._take(args, kwargs)
        if taken is None:
            self._running = None
            return None
        args, kwargs, folds, options = taken
        self._running = folds, options
        return args, kwargs

    def _after(self, block: torch.nn.Module, args: tuple[Any, ...], results: Any) -> Any:
        """A block's results, for all rows."""
        if self._running is None:
            return results
        (folds, options), self._running = self._running, None
        for original, of_rows in options:
            original.update({name: value for name, value in of_rows.items() if name not in PER_CHUNK})
        self.ran.add(block)
        is_last = block is next(reversed(self.trunk))
        return _mapped(results, lambda tensor: self._repeated(tensor, folds, keep=not is_last), top=True)

    def _take(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
        """The arguments for the rows that run, how often rows are folded, and transformer options beside their copies.

        None for a block that gets no rows, and for one that gets tensors in a dictionary, into which it may write.
        """
        rows = len(self.map.expand)
        first = next(_tensors((args, kwargs)), None)
        if first is None or first.shape[0] % rows:
            return None
        folds, options = {1, first.shape[0] // rows}, []
        references = {1, rows} if kwargs.get(REFERENCES_FROM) is not None else set()

        def take(tensor: torch.Tensor) -> torch.Tensor:
            fold, left = divmod(tensor.shape[0], rows)
            if not left and fold in folds:
                return self._taken(tensor, fold)
            behind = tensor.shape[0] - rows
            return self._taken(tensor, 1, behind) if behind in references else tensor

        def take_options(original: dict[str, Any]) -> dict[str, Any]:
            options.append((original, self._options(original)))
            return options[-1][1]

        try:
            return _mapped(args, take, take_options), _mapped(kwargs, take, take_options, top=True), folds, options
        except _WritableDict:
            return None
        finally:
            self._results.clear()

    def _taken(self, tensor: torch.Tensor, folds: int, behind: int = 0) -> torch.Tensor:
        """Memory of its own: blocks write into what they get."""
        result = self._results.pop(id(tensor), None)
        if result is not None:
            repeated, version, rows = result
            if repeated is tensor and tensor._version == version:  # nobody has written into it since
                return rows
        return tensor.index_select(0, self.map.index("keep", tensor.device, folds, behind))

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        def of_rows(entries: Any) -> list[Any]:
            return [entries[chunk] for chunk in self.map.chunks]

        return {**options, **{name: of_rows(options[name]) for name in PER_CHUNK if name in options}}

    def _repeated(self, rows: torch.Tensor, folds: set[int], keep: bool) -> torch.Tensor:
        fold = rows.shape[0] // len(self.map.keep)
        if fold not in folds or rows.shape[0] != fold * len(self.map.keep):
            return rows
        # A tensor of inference mode would not count how often it is written.
        with torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext():
            repeated = rows.index_select(0, self.map.index("expand", rows.device, fold))
        if keep:
            self._results[id(repeated)] = repeated, repeated._version, rows
        return repeated


def _distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    every = a.numel() // COMPARED | 1  # odd, so as not to be in step with channels
    a, b = (tensor.flatten()[::every].float() for tensor in (a, b))
    return (a - b).norm() / b.norm().clamp(min=torch.finfo(torch.float32).tiny)


class _WritableDict(Exception):
    pass


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """All with rows in nested tuples, lists and dictionaries."""
    if torch.is_tensor(value) and value.ndim:
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict) and "cond_or_uncond" not in value:
        yield from _tensors(tuple(value.values()))


def _mapped(
    value: Any,
    of_tensor: Callable[..., Any],
    of_options: Callable[..., Any] = lambda options: options,
    top: bool = False,
) -> Any:
    """A copy of nested tuples, lists, dataclasses and, at the top, a dictionary, with other tensors in it."""
    if torch.is_tensor(value):
        return of_tensor(value) if value.ndim else value
    if isinstance(value, (tuple, list)):
        parts = [_mapped(part, of_tensor, of_options) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict) and "cond_or_uncond" in value:
        return of_options(value)
    if isinstance(value, dict):
        if not top and next(_tensors(value), None) is not None:
            raise _WritableDict
        return {name: _mapped(part, of_tensor, of_options) for name, part in value.items()} if top else value
    if torch.is_tensor(getattr(value, "data", None)) and hasattr(value, "batch_size"):  # LTX-2's CompressedTimestep
        value = copy(value)
        value.data = of_tensor(value.data)
        value.batch_size = len(value.data)
        return value
    if is_dataclass(value) and not isinstance(value, type):
        of_fields = {f.name: _mapped(getattr(value, f.name), of_tensor, of_options) for f in fields(value)}
        return type(value)(**of_fields)
    return value
