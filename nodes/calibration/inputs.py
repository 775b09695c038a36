"""The inputs that the nodes of calibration share."""

from comfy_api.latest import io

from ..classifiers.guidance_classifier import ClassifierSocket
from ..classifiers.latent_decoder import MODES
from .image_folder import folder_names

RESOLUTION = io.Int.Input(
    "resolution", default=256, min=32, max=2048, step=8, optional=True, advanced=True,
    tooltip="Pictures are shrunk or enlarged, and cut to squares of this many pixels. With a model: the size at which it draws well.",
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
