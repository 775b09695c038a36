"""Fine-tunes a classifier until it is only as sure as it is right; the loss is in guidance_core/calibration_objective.py."""

from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..guidance_core.calibration_error import check_relplot
from ..guidance_core.calibration_objective import CalibrationObjective
from ..guidance_core.smooth_ece import FORMS
from .calibration.fine_tuning import Training, calibrate
from .calibration.guidance_view import guidance_view
from .calibration.image_folder import fingerprint, open_folder
from .calibration.inputs import RESOLUTION, VIEW, classifier_input, folder_input
from .calibration.reliability_picture import reliability_picture, skipped_note
from .classifiers.guidance_classifier import ClassifierSocket, GuidanceClassifier
from .classifiers.latent_decoder import small_decoders
from .common.inputs import CATEGORY


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
                    "steps", default=800, min=1, max=100_000,
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
    def fingerprint_inputs(cls, image_folder: str | None, decode: str | None = "auto", **_: Any) -> list[str | float]:
        """Of the pictures; and the small decoders, one of which decode = auto takes as soon as it is there."""
        return [fingerprint(image_folder), *small_decoders(decode)]

    @classmethod
    def execute(
        cls,
        classifier: GuidanceClassifier,
        image_folder: str,
        steps: int,
        learning_rate: float,
        batch_size: int,
        ece_weight: float,
        ece_beta: float,
        seed: int,
        ece_form: str = "per_sample",
        entropy_weight: float = 0.0,
        model: ModelPatcher | None = None,
        conditioning: Any = None,
        vae: Any = None,
        percents: str = "0.25, 0.5, 0.75",
        decode: str = "auto",
        resolution: int = 256,
    ) -> io.NodeOutput:
        check_relplot()
        objective = CalibrationObjective(ece_weight, ece_beta, ece_form, entropy_weight)
        training = Training(objective, steps, learning_rate, batch_size, seed)
        view = guidance_view(classifier, model, conditioning, vae, decode)
        folder = open_folder(image_folder, classifier, resolution)
        done = calibrate(classifier, training, view, folder, percents)
        rows = [("Before", done.before), ("Calibrated", done.after)]
        return io.NodeOutput(done.classifier, reliability_picture(rows, [done.summary, *skipped_note(folder)]))
