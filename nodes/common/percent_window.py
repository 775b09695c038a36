"""The share of a sampling in which something acts."""

import math
from dataclasses import dataclass
from typing import Any

from ...guidance_core.number_range import check_share


@dataclass(frozen=True)
class PercentWindow:
    """A share of the sampling process, 0 ≤ start < end ≤ 1, in ComfyUI's percent."""

    start: float
    end: float

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            check_share(f"{name}_percent", getattr(self, name))
        if self.start >= self.end:
            raise ValueError(
                f"start_percent = {self.start} and end_percent = {self.end}: the window must end after it starts."
            )

    @property
    def is_everything(self) -> bool:
        return self.start == 0 and self.end == 1

    @property
    def why_no_step(self) -> str:
        """The words for a sampling none of whose steps it holds."""
        return (
            f"no step lies between start_percent = {self.start} and end_percent = {self.end}. Widen the window, unless another "
            "sampler does its steps."
        )

    def sigmas(self, model_sampling: Any) -> tuple[float, float]:
        """The window's first and last sigma, from high to low; both ends belong to it, as in ComfyUI's own nodes. Nothing
        is above the start of a sampling: a schedule's first sigma may lie above the model's highest by its rounding."""
        start = math.inf if self.start == 0 else model_sampling.percent_to_sigma(self.start)
        return start, model_sampling.percent_to_sigma(self.end)

    @staticmethod
    def holds(sigma: float, sigmas: tuple[float, float]) -> bool:
        """Whether an evaluation at sigma lies in a window of such `sigmas`."""
        start, end = sigmas
        return end <= sigma <= start
