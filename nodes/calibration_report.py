"""How well a classifier's confidence fits its accuracy, as numbers and as a picture."""

from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..guidance_core.calibration_error import check_relplot
from ..guidance_core.named_choice import check_choice
from .calibration.example_views import example_views
from .calibration.guidance_view import guidance_view
from .calibration.image_folder import fingerprint, open_folder
from .calibration.inputs import RESOLUTION, VIEW, classifier_input, folder_input
from .calibration.measurement import measure
from .calibration.reliability_picture import reliability_picture, skipped_note
from .classifiers.guidance_classifier import GuidanceClassifier
from .classifiers.latent_decoder import small_decoders
from .common.inputs import CATEGORY

PICTURES = ("held out", "all")


class EntropyGuidanceCalibrationReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EntropyGuidanceCalibrationReport",
            display_name="Calibration Report",
            category=CATEGORY,
            description="Shows whether a classifier is surer than it is right, on your example pictures and on what it "
            "sees of them while it guides.",
            search_aliases=["reliability diagram", "ece", "smooth ece", "calibration", "overconfident"],
            inputs=[
                classifier_input(),
                folder_input(),
                io.Combo.Input(
                    "pictures", options=list(PICTURES), default="held out", optional=True,
                    tooltip="held out: the fifth of each class that Calibrate Classifier does not train on. all: every "
                    "picture, for a folder that it did not see.",
                ),
                *VIEW,
                RESOLUTION,
            ],
            outputs=[
                io.Image.Output("picture", tooltip="A reliability diagram for each share of the sampling."),
                io.Float.Output("ece", display_name="ECE", tooltip="Expected calibration error in 15 bins, 0 to 1, lower "
                                "is better; mean of the diagrams."),
                io.Float.Output("smooth_ece", display_name="smooth ECE", tooltip="Smooth calibration error (relplot), 0 to "
                                "1, lower is better; mean of the diagrams."),
                io.Float.Output("accuracy", display_name="accuracy", tooltip="Share of right answers, 0 to 1; mean of the "
                                "diagrams."),
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
        pictures: str = "held out",
        model: ModelPatcher | None = None,
        conditioning: Any = None,
        vae: Any = None,
        percents: str = "0.25, 0.5, 0.75",
        decode: str = "auto",
        resolution: int = 256,
    ) -> io.NodeOutput:
        check_relplot()
        check_choice("pictures", pictures, PICTURES)
        view = guidance_view(classifier, model, conditioning, vae, decode)
        folder = open_folder(image_folder, classifier, resolution)
        shown = folder.held_out if pictures == "held out" else folder.everything
        measured = measure(classifier, example_views(view, shown, percents, classifier.patcher.load_device))
        notes = [
            f"Classifier: {classifier.name}. Folder: {folder.name}, {pictures}, {len(shown)} pictures.",
            *skipped_note(folder),
        ]
        errors = measured.values()
        return io.NodeOutput(
            reliability_picture([("", measured)], notes),
            *(sum(getattr(e, name) for e in errors) / len(errors) for name in ("ece", "smooth_ece", "accuracy")),
        )
