"""Fine-tunes a classifier until it is only as sure as it is right; the loss is in guidance_core/calibration_objective.py."""

import logging
from dataclasses import asdict
from itertools import islice

import comfy.model_management
import torch
from comfy_api.latest import io

from ..guidance_core.calibration_error import check_relplot
from ..guidance_core.calibration_objective import CalibrationObjective
from ..guidance_core.fine_tuning import FineTuning
from ..guidance_core.smooth_ece import FORMS
from .calibration.example_views import ExampleViews
from .calibration.guidance_view import guidance_view
from .calibration.image_folder import ExampleFolder, fingerprint, open_folder
from .calibration.inputs import BATCH, RESOLUTION, VIEW, classifier_input, example_views, folder_input, measure
from .calibration.loss_picture import loss_picture
from .calibration.progress import Progress
from .calibration.reliability_picture import reliability_picture, skipped_note
from .classifiers.guidance_classifier import ClassifierSocket, GuidanceClassifier, guidance_classifier
from .common import CATEGORY, check_number

ALL_MEMORY = 1e30  # bytes: as much as there is


class EntropyGuidanceCalibrate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EntropyGuidanceCalibrate",
            display_name="Calibrate Classifier",
            category=CATEGORY,
            description="Fine-tunes a classifier on your example pictures until it is only as sure as it is right, also "
            "about the half-finished pictures that it sees while it guides. The classifier that goes in stays as it is.",
            search_aliases=["smooth ece", "calibration", "fine-tune", "classifier guidance", "overconfident"],
            inputs=[
                classifier_input(),
                folder_input(),
                io.Int.Input(
                    "steps", default=200, min=1, max=100_000,
                    tooltip="Training steps at most. It ends earlier where the loss on held-out pictures (a fifth of each "
                    "class) no longer falls, and keeps the weights with the lowest.",
                ),
                io.Float.Input(
                    "learning_rate", default=1e-4, min=1e-7, max=1.0, step=1e-6, round=False,
                    tooltip="How far a step changes the weights (AdamW). Lower it where the loss jumps.",
                ),
                io.Int.Input(
                    "batch_size", default=16, min=1, max=4096, tooltip="Pictures in a training step."
                ),
                io.Float.Input(
                    "ece_weight", default=1.0, min=0.0, max=100.0, step=0.05,
                    tooltip="λ: how much confidence that is not earned weighs beside being right (Smooth ECE). 0 is plain "
                    "fine-tuning.",
                ),
                io.Float.Input(
                    "ece_beta", default=0.001, min=0.0, max=1.0, step=0.0001, round=False, advanced=True,
                    tooltip="β: rounds the loss off where confidence and accuracy meet. 0 is the absolute difference.",
                ),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Order of the pictures and their noise.",
                ),
                io.Combo.Input(
                    "ece_form", options=list(FORMS), default="per_sample", optional=True, advanced=True,
                    tooltip="per_sample: the paper's formula as printed. per_bin: compares means of pictures about which "
                    "the classifier is equally sure, as the calibration error does.",
                ),
                io.Float.Input(
                    "entropy_weight", default=0.0, min=0.0, max=100.0, step=0.05, optional=True, advanced=True,
                    tooltip="η: draws the classifier's opinion towards doubt. With ece_weight 0 this is entropy-aware "
                    "training, the paper's baseline.",
                ),
                *VIEW,
                RESOLUTION,
            ],
            outputs=[
                ClassifierSocket.Output("classifier", tooltip="The calibrated classifier: wire it to Guidance Score, or save it."),
                io.Image.Output("picture", tooltip="Reliability diagrams of the held-out pictures, before and after."),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, image_folder, **_):
        return fingerprint(image_folder)

    @classmethod
    def execute(
        cls, classifier, image_folder, steps, learning_rate, batch_size, ece_weight, ece_beta, seed,
        ece_form="per_sample", entropy_weight=0.0, model=None, conditioning=None, vae=None, percents="0.25, 0.5, 0.75",
        decode="auto", resolution=256,
    ) -> io.NodeOutput:  # fmt: skip
        check_relplot()
        check_number("steps", steps, lowest=1)
        check_number("batch_size", batch_size, lowest=1)
        check_number("learning_rate", learning_rate, lowest=1e-12)
        objective = CalibrationObjective(ece_weight, ece_beta, ece_form, entropy_weight)
        view = guidance_view(classifier, model, conditioning, vae, decode)
        folder = open_folder(image_folder, classifier, resolution)
        _check_batch(folder, batch_size)
        device = classifier.patcher.load_device
        examples = example_views(view, folder.training, percents, device, f"training {seed}")
        held_out = example_views(view, folder.held_out, percents, device)
        before = measure(classifier, held_out)
        module, tuning = fine_tune(classifier, objective, examples, held_out, steps, learning_rate, batch_size, seed)
        settings = {
            **asdict(objective), "steps": steps, "best_step": tuning.best_step, "learning_rate": learning_rate,
            "batch_size": batch_size, "seed": seed, "resolution": resolution,
            "percents": list(examples.percents), "image_folder": image_folder,
        }  # fmt: skip
        with torch.inference_mode(False):
            calibrated = guidance_classifier(f"{classifier.name} (calibrated)", module, classifier.labels, settings)
        after = measure(calibrated, held_out)
        notes = [_summary(tuning, len(folder.training), len(folder.held_out)), *skipped_note(folder)]
        return io.NodeOutput(calibrated, reliability_picture([("Before", before), ("Calibrated", after)], notes))


def _check_batch(folder: ExampleFolder, batch_size: int) -> None:
    if batch_size > len(folder.training):
        raise ValueError(
            f"batch_size = {batch_size}: the folder '{folder.name}' has {len(folder.training)} pictures to train on "
            f"({len(folder.held_out)} more are held out). Use {len(folder.training)} or less, or add pictures."
        )


@torch.inference_mode(False)
@torch.enable_grad()
def fine_tune(
    classifier: GuidanceClassifier, objective: CalibrationObjective, examples: ExampleViews, held_out: ExampleViews,
    steps: int, learning_rate: float, batch_size: int, seed: int,
) -> tuple[torch.nn.Module, FineTuning]:  # fmt: skip
    """A trained copy of a classifier's module. Interrupted, it leaves nothing behind."""
    _prepare(examples, batch_size, steps, seed)
    module = classifier.trainable_copy().to(examples.device)

    def batches():
        for number, numbers in enumerate(examples.shuffled(batch_size, seed)):
            batch = examples.batch(numbers)
            if examples.full or number == 0:  # the model that made it leaves the memory to training
                comfy.model_management.free_memory(ALL_MEMORY, examples.device)
            yield batch

    def held_out_batches():
        for percent in held_out.percents:
            for batch in held_out.batches(percent, BATCH):
                comfy.model_management.throw_exception_if_processing_interrupted()
                yield batch

    tuning = FineTuning(module, objective, held_out_batches, learning_rate, steps)
    progress, checked = Progress(steps), 0
    for _ in tuning.run(batches()):
        is_new = len(tuning.held_out_losses) > checked
        checked = len(tuning.held_out_losses)
        progress(loss_picture(tuning) if is_new else None)
    log = logging.warning if "finite" in tuning.stopped else logging.info
    log("Calibrate Classifier: %s", _summary(tuning, len(examples.pictures), len(held_out.pictures)))
    return module.cpu(), tuning


def _prepare(examples: ExampleViews, batch_size: int, steps: int, seed: int) -> None:
    """Makes the views that training will ask for, ahead of it: what makes them and what trains share the memory."""
    first_round = islice(examples.shuffled(batch_size, seed), min(steps, len(examples) // batch_size))
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
