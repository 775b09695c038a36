"""How well a classifier's confidence fits its accuracy, on all views of a folder's pictures."""

from collections.abc import Callable
from typing import Any

import torch

from ...guidance_core.calibration_error import CalibrationError, calibration_error
from ..common.progress import Progress
from ..common.want_of_memory import saying_what_to_change, with_fewer_at_once
from .example_views import BATCH, ExampleViews

SHORT_OF_MEMORY = (
    "Memory is too short to look at a single picture. Choose a smaller resolution, decode = taesd or half where there is a model, "
    "or a smaller classifier."
)


def measure(classify: Callable[..., Any], views: ExampleViews) -> dict[float, CalibrationError]:
    """How well a classifier's confidence fits its accuracy, at each percent of the views. Where memory runs out, fewer pictures
    are looked at at once from there on."""
    progress = Progress(len(views) // BATCH + len(views.percents))
    found, at_once = {}, BATCH
    for percent in views.percents:
        answers, at_once = _answers(classify, views, percent, at_once, progress)
        found[percent] = calibration_error(*answers)
    return found


@torch.no_grad()
def _answers(
    classify: Callable[..., Any], views: ExampleViews, percent: float, at_once: int, progress: Progress
) -> Any:
    """Logits and class numbers of all pictures, and of how many at once there was memory for."""

    def in_batches(size: int) -> tuple[torch.Tensor, ...]:
        answers = []
        for inputs, labels in views.batches(percent, size):
            answers.append((classify(*inputs), labels))
            progress()
        return tuple(torch.cat(parts) for parts in zip(*answers))

    with saying_what_to_change(SHORT_OF_MEMORY):
        return with_fewer_at_once(in_batches, at_once)
