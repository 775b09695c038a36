"""How queries and outputs of ComfyUI's attention lie in memory, which the general energy has to mix."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class OutputLayout:
    """Queries come as [B, N, H·D] or, with skip_reshape, [B, H, N, D]; outputs too, with skip_output_reshape."""

    heads: int
    kwargs: dict[str, Any]

    def of_queries(self, q: Tensor, retrieved: Tensor) -> Tensor:
        """Queries in the output's layout. Raises RuntimeError where values are wider or narrower than queries."""
        split_in, split_out = (self.kwargs.get(name, False) for name in ("skip_reshape", "skip_output_reshape"))
        if split_in and not split_out:
            q = q.transpose(1, 2).flatten(2)
        elif split_out and not split_in:
            q = q.unflatten(2, (self.heads, -1)).transpose(1, 2)
        if q.shape[1:] != retrieved.shape[1:]:
            raise RuntimeError(
                f"alpha, step_size and iterations other than 1 mix queries {list(q.shape[1:])} with values "
                f"{list(retrieved.shape[1:])}, which differ in width in this model: set all three to 1."
            )
        return q

    def to_queries(self, state: Tensor, q: Tensor) -> Tensor:
        """The inverse of `of_queries`, to the layout of q."""
        if state.ndim == q.ndim:
            return state
        return state.unflatten(2, (self.heads, -1)).transpose(1, 2) if q.ndim == 4 else state.transpose(1, 2).flatten(2)
