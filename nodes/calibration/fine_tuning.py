"""Fine-tuning a classifier on what it sees while it guides, under ComfyUI's memory management, progress and interrupts.

The training loop is in guidance_core/fine_tuning.py, its loss in guidance_core/calibration_objective.py.
"""

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import Any

import comfy.model_management
import torch

from ...guidance_core.calibration_error import CalibrationError
from ...guidance_core.calibration_objective import CalibrationObjective
from ...guidance_core.fine_tuning import Batch, FineTuning
from ...guidance_core.number_range import LARGEST, check_number, whole_number
from ..classifiers.guidance_classifier import GuidanceClassifier, guidance_classifier
from ..common.printable import printable
from ..common.progress import Progress
from ..common.want_of_memory import saying_what_to_change
from .example_views import BATCH, ExampleViews, example_views
from .guidance_view import PictureView
from .image_folder import ExampleFolder
from .loss_picture import loss_picture
from .measurement import measure

ALL_MEMORY = 1e30  # bytes: as much as there is


@dataclass(frozen=True)
class Training:
    """steps: at most so many. batch_size: pictures in a step. Raises ValueError for numbers that cannot be trained with."""

    objective: CalibrationObjective
    steps: int
    learning_rate: float
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        check_number("learning_rate", self.learning_rate, lowest=1e-12)
        seeds = 0, 2**64 - 1  # that PyTorch takes
        ranges = {"steps": (1, LARGEST), "batch_size": (1, LARGEST), "seed": seeds}
        for name, (lowest, highest) in ranges.items():  # a linked one may be 2.0
            object.__setattr__(self, name, whole_number(name, getattr(self, name), lowest, highest))

    @property
    def settings(self) -> dict[str, Any]:
        """What to note in a trained classifier's file."""
        others = {name: value for name, value in vars(self).items() if name != "objective"}
        return {**asdict(self.objective), **others}


@dataclass(frozen=True)
class Calibrated:
    """before, after: what was measured on the held-out pictures, at each percent. summary: a line on the training."""

    classifier: GuidanceClassifier
    before: dict[float, CalibrationError]
    after: dict[float, CalibrationError]
    summary: str


def calibrate(
    classifier: GuidanceClassifier, training: Training, view: PictureView, folder: ExampleFolder, percents: str
) -> Calibrated:
    """Trains a copy of a classifier on a folder's pictures, and measures both on the held-out ones.

    percents: the shares of the sampling at which a model's view shows pictures. Raises ValueError for a folder with fewer
    pictures than a batch has, or too few to measure.
    """
    _check_batch(folder, training.batch_size)
    device = classifier.patcher.load_device
    examples = example_views(view, folder.training, percents, device, f"training {training.seed}")
    held_out = example_views(view, folder.held_out, percents, device)
    before = measure(classifier, held_out)
    module, tuning = fine_tune(classifier, training, examples, held_out)
    notes = {
        **training.settings, "best_step": tuning.best_step, "resolution": folder.training.size,
        "percents": list(examples.percents), "image_folder": folder.name,
    }  # fmt: skip
    with torch.inference_mode(False):
        calibrated = guidance_classifier(f"{classifier.name} (calibrated)", module, classifier.labels, notes)
    summary = _summary(tuning, len(folder.training), len(folder.held_out))
    return Calibrated(calibrated, before, measure(calibrated, held_out), summary)


def _check_batch(folder: ExampleFolder, batch_size: int) -> None:
    if batch_size > len(folder.training):
        raise ValueError(
            f"batch_size = {batch_size}: the folder '{printable(folder.name)}' has {len(folder.training)} pictures to train on "
            f"({len(folder.held_out)} more are held out). Use {len(folder.training)} or less, or add pictures."
        )


@torch.inference_mode(False)
@torch.enable_grad()
def fine_tune(
    classifier: GuidanceClassifier, training: Training, examples: ExampleViews, held_out: ExampleViews
) -> tuple[torch.nn.Module, FineTuning]:
    """A trained copy of a classifier's module. Interrupted, it leaves nothing behind."""
    _prepare(examples, training)
    comfy.model_management.free_memory(ALL_MEMORY, examples.device)  # what made views leaves the memory to training
    batches = islice(examples.shuffled(training.batch_size, training.seed), training.steps)
    at_once = min(BATCH, training.batch_size)  # who lowers that for want of memory is not to meet more pictures here

    def held_out_batches() -> Iterator[Batch]:
        numbers = chain.from_iterable(held_out.in_order(percent, at_once) for percent in held_out.percents)
        for batch in _made_ahead(held_out, numbers, at_once):
            comfy.model_management.throw_exception_if_processing_interrupted()
            yield batch

    with saying_what_to_change(
        f"batch_size = {training.batch_size}: memory is too short to train with so many pictures at once. Lower it, or use a "
        "smaller classifier."
    ):
        module = classifier.trainable_copy().to(examples.device)
        tuning = FineTuning(module, training.objective, held_out_batches, training.learning_rate, training.steps)
        progress, checked = Progress(training.steps), 0
        for _ in tuning.run(_made_ahead(examples, batches, training.batch_size)):
            is_new = len(tuning.held_out_losses) > checked
            checked = len(tuning.held_out_losses)
            progress(loss_picture(tuning) if is_new else None)
    log = logging.warning if "finite" in tuning.stopped else logging.info
    log("Calibrate Classifier: %s", _summary(tuning, len(examples.pictures), len(held_out.pictures)))
    return module.cpu(), tuning


def _made_ahead(views: ExampleViews, batches: Iterator[list[int]], size: int) -> Iterator[Batch]:
    """Batches of so many views, by their numbers. What makes views does so for as many batches as there is room for, and
    leaves the memory to what is done with these."""
    while group := [*islice(batches, views.batches_ahead(size))]:
        if views.make_ahead(chain.from_iterable(group)):
            comfy.model_management.free_memory(ALL_MEMORY, views.device)
        yield from map(views.batch, group)


def _prepare(examples: ExampleViews, training: Training) -> None:
    """Makes the views that training will ask for, ahead of it: what makes them and what trains share the memory."""
    size = training.batch_size
    first_round = islice(examples.shuffled(size, training.seed), min(training.steps, len(examples) // size))
    wanted = sorted(number for numbers in first_round for number in numbers)
    progress = Progress(len(wanted) // BATCH + 1)
    for start in range(0, len(wanted), BATCH):
        if not examples.full:
            examples.batch(wanted[start : start + BATCH])
        progress()


def _summary(tuning: FineTuning, training: int, held_out: int) -> str:
    done = len(tuning.losses)
    ended = (
        f"Stopped after step {done} of {tuning.steps}: {tuning.stopped}" if tuning.stopped else f"All {done} steps done"
    )
    kept = f"the weights after step {tuning.best_step}" if tuning.best_step else "the weights as they came"
    return (
        f"{ended}; kept are {kept}, with the lowest held-out loss ({tuning.best_loss:.3f}, at the start "
        f"{tuning.held_out_losses[0]:.3f}). {training} pictures to train on, {held_out} held out: to choose these "
        "weights by, and shown here."
    )
