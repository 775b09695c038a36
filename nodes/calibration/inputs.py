"""What the nodes of calibration have in common: their inputs, and how a classifier's answers are gathered."""

from collections.abc import Callable

import torch
from comfy_api.latest import io

from ...guidance_core.calibration_error import CalibrationError, calibration_error
from ..classifiers.guidance_classifier import ClassifierSocket
from ..classifiers.latent_decoder import MODES
from .example_views import ExampleViews
from .guidance_view import FINISHED, PictureView, PredictionView, parse_percents
from .image_folder import Pictures, folder_names
from .progress import Progress

BATCH = 16  # pictures looked at together
RESOLUTION = io.Int.Input(
    "resolution", default=256, min=32, max=2048, step=8, optional=True, advanced=True,
    tooltip="Pictures are shrunk and cut to squares of this many pixels. With a model: the size at which it draws well.",
)  # fmt: skip
VIEW = (
    io.Model.Input(
        "model", optional=True,
        tooltip="Shows the classifier what it sees while it guides: this model's predictions from noisy pictures, at the "
        "shares of the sampling in percents. Without it, finished pictures alone.",
    ),
    io.Conditioning.Input(
        "conditioning", optional=True,
        tooltip="The prompt for the model's predictions: that of an empty text, where you guide without a prompt.",
    ),
    io.Vae.Input("vae", optional=True, tooltip="The model's VAE. Pixel-space models go without."),
    io.String.Input(
        "percents", default="0.25, 0.5, 0.75", optional=True,
        tooltip="With a model: the shares of the sampling at which pictures are shown, beside the finished ones.",
    ),
    io.Combo.Input(
        "decode", options=list(MODES), default="auto", optional=True, advanced=True,
        tooltip="How the model's predictions are decoded; choose what Apply Classifier Guidance uses. full: the VAE. half: "
        "the VAE at half the size. taesd: the small decoder of previews. auto: taesd where it is present.",
    ),
)  # fmt: skip


def classifier_input() -> io.Input:
    return ClassifierSocket.Input("classifier", tooltip="From Load Guidance Classifier or Calibrate Classifier.")


def folder_input() -> io.Input:
    return io.Combo.Input(
        "image_folder", options=folder_names(),
        tooltip="A folder below ComfyUI's input folder that has one sub-folder for each class, named after the class, "
        "with pictures of it. entropy-guidance-demo fits the classifier of that name.",
    )  # fmt: skip


def example_views(view: PictureView, pictures: Pictures, percents: str, device, seed: str = "measured") -> ExampleViews:
    """All views of pictures: finished alone where no model shows others. Raises ValueError for fewer than two pictures."""
    if len(pictures) < 2:
        raise ValueError(
            f"image_folder: {len(pictures)} pictures are too few to measure. Add some: a fifth of each class is held out, "
            "and those have to be two or more."
        )
    chosen = parse_percents(percents) if isinstance(view, PredictionView) else (FINISHED,)
    return ExampleViews(view, pictures, chosen, device, seed)


def measure(classify: Callable, views: ExampleViews) -> dict[float, CalibrationError]:
    """How well a classifier's confidence fits its accuracy, at each percent of the views."""
    progress = Progress(len(views) // BATCH + len(views.percents))
    return {percent: calibration_error(*_answers(classify, views, percent, progress)) for percent in views.percents}


@torch.no_grad()
def _answers(classify: Callable, views: ExampleViews, percent: float, progress: Progress):
    """Logits and class numbers of all pictures."""
    answers = []
    for inputs, labels in views.batches(percent, BATCH):
        answers.append((classify(*inputs), labels))
        progress()
    return tuple(torch.cat(parts) for parts in zip(*answers))
