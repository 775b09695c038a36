"""Saves a classifier, calibrated or not, where the loader finds it."""

from comfy_api.latest import io, ui

from .classifiers.files import save_classifier
from .classifiers.guidance_classifier import ClassifierSocket, GuidanceClassifier
from .common.inputs import CATEGORY


class EntropyGuidanceSaveClassifier(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EntropyGuidanceSaveClassifier",
            display_name="Save Guidance Classifier",
            category=CATEGORY,
            description="Saves a classifier into ComfyUI/output/classifiers, as safetensors with its classes and how it "
            "was calibrated. Load Guidance Classifier lists it after a refresh (R).",
            search_aliases=["calibration", "export classifier"],
            inputs=[
                ClassifierSocket.Input("classifier", tooltip="From Calibrate Classifier or Load Guidance Classifier."),
                io.String.Input(
                    "filename_prefix", default="calibrated",
                    tooltip="The name before its number; folders and %year%-%month%-%day% work as in Save Image.",
                ),
            ],
            is_output_node=True,
        )  # fmt: skip

    @classmethod
    def execute(cls, classifier: GuidanceClassifier, filename_prefix: str) -> io.NodeOutput:
        return io.NodeOutput(ui=ui.PreviewText(f"Saved as {save_classifier(classifier, filename_prefix)}"))
