"""The rows of a batch that belong to the weak branch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


def label_rows(
    weak: tuple[bool, ...], rows: int, options: dict[str, Any], others: Callable[[], str]
) -> tuple[bool, ...]:
    """For each row of an evaluation's input whether it is the weak branch's.

    weak: the same for each chunk, of equally many rows, one chunk after the other. options: the evaluation's transformer
    options, whose `sigmas` tell how many rows a chunk has. others: gives the names of the nodes that may have added rows.
    Raises RuntimeError where the rows of chunks cannot be told apart.
    """
    sigmas = options.get("sigmas")
    each = rows // len(weak) if sigmas is None or sigmas.ndim == 0 else len(sigmas)
    if len(set(weak)) == 1:  # whatever was done to the rows
        return weak[:1] * rows
    if rows != each * len(weak):
        raise RuntimeError(
            f"Another node runs the network on {rows} rows where guidance has {each * len(weak)}: which ones are the "
            f"negative ones cannot be told. If it works in tiles, set its tile batch size to 1, or take it out: {others()}."
        )
    return tuple(label for label in weak for _ in range(each))


def partner_rows(partners: tuple[int, ...], rows: int) -> tuple[int, ...]:
    """For each row of an evaluation's input the row of the same picture in the partner of its chunk.

    partners: of each chunk which chunk that is. Where chunks have no equal numbers of rows, each row is its own.
    """
    each, rest = divmod(rows, len(partners))
    return tuple(range(rows)) if rest else tuple(chunk * each + row for chunk in partners for row in range(each))


def owners_of_rows(rows: int, places: int, inputs: int, chunks: int) -> tuple[int, ...] | None:
    """For equally large groups of an attention call's rows, the row of the network's input that each belongs to.

    rows, places: of the queries. inputs: the rows of the input, in so many chunks. Each is a group, or, in attention over
    the frames of a video that are rows of a chunk (SVD) and places there, each chunk, for which its first row stands. None
    where rows make no such groups.
    """
    if rows % inputs == 0:
        return tuple(range(inputs))
    is_over_frames = inputs == places * chunks and rows % chunks == 0
    return tuple(range(0, inputs, places)) if is_over_frames else None


def weak_rows(labels: tuple[bool, ...], rows: int) -> list[int]:
    """The numbers of weak rows among rows that fold each labelled row into several, one after the other."""
    each = rows // len(labels)
    return [i for i in range(rows) if labels[i // each]]


def owners_of_weak_rows(labels: tuple[bool, ...], rows: int, owners: tuple[int, ...]) -> tuple[int, ...]:
    """For each weak row of which row of the network's input it is. owners: the same for each labelled row."""
    return tuple(owners[row * len(labels) // rows] for row in weak_rows(labels, rows))


@torch.inference_mode(False)
def index_of_rows(labels: tuple[bool, ...], rows: int, device: torch.device) -> torch.Tensor:
    """`weak_rows` as an index, [weak rows]."""
    return torch.tensor(weak_rows(labels, rows), device=device, dtype=torch.long)


@torch.inference_mode(False)
def scale_of_rows(
    labels: tuple[bool, ...],
    rows: int,
    dimensions: int,
    temperature: float,
    dtype: torch.dtype | None,
    device: torch.device,
) -> torch.Tensor:
    """τ for rows of the weak branch and 1 for others: [rows, 1, ...], to scale q with so many dimensions."""
    scale = torch.ones(rows, *(1,) * (dimensions - 1), dtype=dtype, device=device)
    scale[index_of_rows(labels, rows, device)] = temperature
    return scale


@dataclass(frozen=True)
class RowTaker:
    """Takes the weak rows of whatever has one row for each row of q; a mask shared by all rows stays as it is."""

    rows: torch.Tensor
    count: int

    def __call__(self, value: Any) -> Any:
        if torch.is_tensor(value) and value.ndim > 2 and value.shape[0] == self.count:
            return value[self.rows]
        return value
