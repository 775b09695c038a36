"""The rows of a batch that belong to the weak branch."""

from dataclasses import dataclass

import torch


@torch.inference_mode(False)
def weak_rows(weak: tuple[bool, ...], rows: int, device: torch.device) -> torch.Tensor:
    """Numbers of the rows in the weak chunks. All chunks have equally many rows, one after the other."""
    if rows % len(weak):
        raise RuntimeError(
            f"This model runs attention on {rows} rows for {len(weak)} conditions: which rows are the negative "
            "ones cannot be told. Please report the model; until then, take the node out for it."
        )
    each = rows // len(weak)
    return torch.tensor([i for i in range(rows) if weak[i // each]], device=device, dtype=torch.long)


@torch.inference_mode(False)
def scale_of_rows(
    weak: tuple[bool, ...], rows: int, dimensions: int, temperature: float, dtype, device
) -> torch.Tensor:
    """τ for rows of the weak branch and 1 for others: [rows, 1, ...], to scale q with so many dimensions."""
    scale = torch.ones(rows, *(1,) * (dimensions - 1), dtype=dtype, device=device)
    scale[weak_rows(weak, rows, device)] = temperature
    return scale


@dataclass(frozen=True)
class RowTaker:
    """Takes the weak rows of whatever has one row for each row of q; a mask shared by all rows stays as it is."""

    rows: torch.Tensor
    count: int

    def __call__(self, value):
        if torch.is_tensor(value) and value.ndim > 2 and value.shape[0] == self.count:
            return value[self.rows]
        return value
