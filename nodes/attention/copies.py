"""To other nodes, a copy of a condition that a branch of its own has added is what it was copied from.

They know the numbers 0 and 1 alone (IP-Adapters), or look for the first chunk of a number (NAG), where ComfyUI batches
conditions last first: so copies have the numbers of their originals, and come after them where anyone looks.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from ..sampling.condition_names import ORIGINALS, UUIDS_OF_ORIGINALS
from .network_call import NetworkCall, with_tensors
from .weak_condition import CHUNK_NAMES, names_of_chunks

PER_CHUNK = (
    "cond_or_uncond",
    "uuids",
    CHUNK_NAMES,
)  # lists in transformer options with an entry for each chunk of rows


def with_copies_as_originals(call: NetworkCall) -> tuple[NetworkCall, Callable[..., Any]]:
    """The call for other nodes, and what puts its prediction [rows, ...] back in order.

    It is the call as it is where there are no copies, or where a node around it has seen to them.
    """
    numbers, originals = call.options.get("cond_or_uncond", ()), call.options.get(ORIGINALS)
    if CHUNK_NAMES in call.options or originals is None or all(originals[number] == number for number in numbers):
        return call, _as_it_is
    of_originals = [originals[number] for number in numbers]
    options = {**call.options, "cond_or_uncond": of_originals, CHUNK_NAMES: names_of_chunks(call.options)}
    order = sorted(range(len(numbers)), key=lambda chunk: of_originals[chunk] != numbers[chunk])
    return _reordered_call(replace(call, options=options), order)


def copies_of_chunks(options: dict[str, Any]) -> dict[int, int]:
    """Of an evaluation's chunks those that are copies, each with the chunk of the very entry that it was copied from."""
    originals, of_numbers = options.get(UUIDS_OF_ORIGINALS, {}), options.get(ORIGINALS, ())
    entries = [(of_numbers[number], uuid) for number, uuid in zip(options["cond_or_uncond"], options.get("uuids", ()))]
    chunk_of = {entry: chunk for chunk, entry in enumerate(entries) if entry[1] not in originals}
    wanted = ((chunk, (number, originals.get(uuid))) for chunk, (number, uuid) in enumerate(entries))
    return {chunk: chunk_of[original] for chunk, original in wanted if original in chunk_of}


def _reordered_call(call: NetworkCall, order: list[int]) -> tuple[NetworkCall, Callable[..., Any]]:
    patched = any(call.options.get(name) for name in ("patches", "patches_replace"))
    rows = len(call.inputs[0])
    if not patched or order == sorted(order) or rows % len(order):
        return call, _as_it_is
    lists = {name: [call.options[name][chunk] for chunk in order] for name in PER_CHUNK if name in call.options}
    reordered = replace(
        call,
        inputs=_reordered(call.inputs, order, rows),
        control=_reordered(call.control, order, rows),
        options={**call.options, **lists},
        conditions=_reordered(call.conditions, order, rows),
    )
    back = sorted(range(len(order)), key=order.__getitem__)
    return reordered, lambda prediction: _reordered(prediction, back, rows)


def _as_it_is(prediction: torch.Tensor) -> torch.Tensor:
    return prediction


def _reordered(value: Any, order: list[int], rows: int) -> Any:
    """Nested values in which tensors of so many rows have their chunks in that order."""

    def reorder(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim == 0 or tensor.shape[0] != rows:
            return tensor
        chunks = tensor.chunk(len(order))
        return torch.cat([chunks[place] for place in order])

    return with_tensors(value, reorder)
