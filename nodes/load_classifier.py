"""Loads an image classifier from ComfyUI's model folder `classifiers`."""

from typing import Any

from comfy_api.latest import io

from .classifiers.files import DEMO, classifier_names, fingerprint, load_classifier
from .classifiers.guidance_classifier import ClassifierSocket
from .common.inputs import CATEGORY


class EntropyGuidanceLoadClassifier(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EntropyGuidanceLoadClassifier",
            display_name="Load Guidance Classifier",
            category=CATEGORY,
            description="Loads an image classifier, so that it can guide a picture towards a class: a Hugging Face "
            "folder (image classification, or zero-shot CLIP and SigLIP with classes of your own), a torchvision "
            "state dict, or a noise-aware classifier. Put it into ComfyUI/models/classifiers.",
            search_aliases=["classifier guidance", "image classification", "resnet", "zero-shot", "clip", "siglip", "noise-aware"],
            inputs=[
                io.Combo.Input(
                    "classifier_name", options=classifier_names(), default=DEMO,
                    tooltip="A folder with config.json, preprocessor_config.json and safetensors; or a .safetensors, "
                    ".pth, .pt or .ckpt file whose name begins with torchvision's name of the network, such as resnet50.pth, "
                    "or is that of a noise-aware classifier, such as 128x128_classifier.pt. entropy-guidance-demo "
                    "knows the colours of the demo model's shapes, entropy-guidance-demo-classes the 18 classes of the "
                    "class-conditional demo; -noise-aware reads its noisy pictures.",
                ),
                io.String.Input(
                    "prompts", default="", multiline=True, optional=True,
                    tooltip="Only for zero-shot models (CLIP, SigLIP): the classes, one text on each line, such as "
                    "'a photo of a cat'. Leave it empty for any other classifier.",
                ),
            ],
            outputs=[ClassifierSocket.Output("classifier", tooltip="The classifier: wire it to Guidance Score.")],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, classifier_name: str | None, **_: Any) -> list[tuple[str, int, int]]:
        """So that a file that was written anew, or a label that was changed, is read."""
        return fingerprint(classifier_name)

    @classmethod
    def execute(cls, classifier_name: str, prompts: str = "") -> io.NodeOutput:
        lines = tuple(filter(None, map(str.strip, prompts.splitlines())))
        return io.NodeOutput(load_classifier(classifier_name, lines))
