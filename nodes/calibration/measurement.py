"""How well a classifier's confidence fits its accuracy, on all views of a folder's pictures."""

from collections.abc import Callable
from typing import Any

import torch

from ...guidance_core.calibration_error import CalibrationError, calibration_error
from ..common.want_of_memory import saying_what_to_change
from .example_views import BATCH, ExampleViews
from .progress import Progress

SHORT_OF_MEMORY = (
    f"Memory is too short to look at {BATCH} pictures at once. Choose a smaller resolution, decode = taesd or half where there "
    "is a model, or a smaller classifier."
)


def measure(classify: Callable[..., Any], views: ExampleViews) -> dict[float, CalibrationError]:
    """How well a classifier's confidence fits its accuracy, at each percent of the views."""
    progress = Progress(len(views) // BATCH + len(views.percents))
    return {percent: calibration_error(*_answers(classify, views, percent, progress)) for percent in views.percents}


@torch.no_grad()
def _answers(classify: Callable[..., Any], views: ExampleViews, percent: float, progress: Progress) -> Any:
    """Logits and class numbers of all pictures."""
    answers = []
    with saying_what_to_change(SHORT_OF_MEMORY):
        for inputs, labels in views.batches(percent, BATCH):
            answers.append((classify(*inputs), labels))
            progress()
    return tuple(torch.cat(parts) for parts in zip(*answers))
