"""What every node of the pack has in common: its place in the menu, the inputs that several share, words that a log can
print, and which errors are a want of memory."""

import math
import traceback
from dataclasses import dataclass
from typing import Any

import torch
from comfy_api.latest import io

from ..guidance_core.number_range import check_share

CATEGORY = "entropy guidance"

START_PERCENT = io.Float.Input(
    "start_percent", default=0.0, min=0.0, max=1.0, step=0.001, advanced=True,
    tooltip="When the effect begins, as a share of the sampling: 0 is the first step.",
)  # fmt: skip
END_PERCENT = io.Float.Input(
    "end_percent", default=1.0, min=0.0, max=1.0, step=0.001, advanced=True,
    tooltip="When the effect ends, as a share of the sampling: 1 is the last step.",
)  # fmt: skip


TILT = io.Float.Input(
    "tilt", default=0.0, min=-100.0, max=100.0, step=0.05,
    tooltip="Weighs the pictures of a batch: below 0 guides those more that do not show their class yet (variety; the "
    "paper uses -0.2), above 0 those that do. No effect on a single picture.",
)  # fmt: skip
VAE = io.Vae.Input(
    "vae", optional=True,
    tooltip="The model's VAE, with which the classifier sees pictures. Pixel-space models and noise-aware classifiers go "
    "without.",
)  # fmt: skip


def printable(text: str) -> str:
    """A text with lone halves of a character (U+D800 to U+DFFF) written out, as \\udcff: names of files and JSON may hold
    them. No log can print them, and ComfyUI's worker ends where one is logged."""
    return text.encode("utf-8", "backslashreplace").decode()


def printable_cause(error: Exception) -> Exception | None:
    """What to raise another error from: `error`, or None where its traceback, which ComfyUI logs, cannot be printed."""
    words = "".join(traceback.format_exception(error))
    return error if words == printable(words) else None


def is_want_of_memory(error: Exception) -> bool:
    """Whether it is memory that was missing, a device's or the computer's: backends have words of their own for it."""
    words = str(error).lower()
    if "illegal memory" in words or "memory location" in words or "memory format" in words:
        return False
    said = ("memory", "alloc_failed", "invalid buffer size")
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(word in words for word in said)


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
