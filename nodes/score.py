"""The score that classifier guidance climbs: a classifier, the wanted classes, and the formula of the score."""

from typing import Any

from comfy_api.latest import io

from ..guidance_core.class_labels import parse_labels
from ..guidance_core.classifier_score import ClassifierScore
from ..guidance_core.divergence import DIVERGENCES
from ..guidance_core.smooth_relu import SmoothReLU
from .classifiers.guidance_classifier import ClassifierSocket, GuidanceClassifier
from .classifiers.guidance_score import GuidanceScore, ScoreSocket
from .common.inputs import CATEGORY


class EntropyGuidanceScore(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EntropyGuidanceScore",
            display_name="Guidance Score",
            category=CATEGORY,
            description="Says which class the picture should show and how a classifier's opinion is turned into a "
            "direction. A divergence keeps over-confident classifiers guiding.",
            search_aliases=["classifier guidance", "reverse kl", "forward kl", "jensen shannon", "divergence"],
            inputs=[
                ClassifierSocket.Input("classifier", tooltip="From Load Guidance Classifier."),
                io.String.Input(
                    "labels", default="0", multiline=True,
                    tooltip="The class by name or number: one for all images, or one for each image of the batch, on "
                    "lines of their own or separated by commas. A misspelt name lists the nearest ones.",
                ),
                io.Combo.Input(
                    "divergence", options=["none", *DIVERGENCES], default="reverse_kl",
                    tooltip="Pulls the classifier's opinion towards a softened target. none: plain guidance. "
                    "In the paper reverse_kl keeps variety, forward_kl is most precise, jensen_shannon is balanced.",
                ),
                io.Float.Input(
                    "divergence_weight", default=1.0, min=0.0, max=100.0, step=0.05,
                    tooltip="Weight a of the divergence; without one it has no effect. 0 is plain guidance.",
                ),
                io.Float.Input(
                    "target_confidence", default=0.9, min=0.0, max=1.0, step=0.01,
                    tooltip="How much of the softened target lies on the wanted class (ε); the rest is spread over "
                    "all classes. Must be below 1 for forward_kl.",
                ),
                io.Float.Input(
                    "joint_temperature", default=1.0, min=0.0, max=10.0, step=0.05, advanced=True,
                    tooltip="Weight τ1 of the wanted class's logit.",
                ),
                io.Float.Input(
                    "marginal_temperature", default=0.5, min=0.0, max=10.0, step=0.05, advanced=True,
                    tooltip="Weight τ2 of all classes' logits against it. Below joint_temperature (0.5 in the paper's "
                    "baseline), a classifier that is already sure goes on guiding.",
                ),
                io.Float.Input(
                    "entropy_weight", default=0.0, min=-10.0, max=10.0, step=0.05, advanced=True,
                    tooltip="Above 0 rewards a classifier in doubt (variety), below 0 a certain one. 0 is off.",
                ),
                io.Float.Input(
                    "softplus_beta", default=3.0, min=0.0, max=100.0, step=0.5, advanced=True,
                    tooltip="Smooths the ReLUs of the classifier while it guides, for even gradients: softplus with "
                    "this β (3 in the paper's baseline; larger is nearer to ReLU). 0 leaves them as they are.",
                ),
            ],
            outputs=[ScoreSocket.Output("score", tooltip="The score: wire it to Apply Classifier Guidance.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        classifier: GuidanceClassifier,
        labels: Any,
        divergence: str,
        divergence_weight: float,
        target_confidence: float,
        joint_temperature: float,
        marginal_temperature: float,
        entropy_weight: float,
        softplus_beta: float,
    ) -> io.NodeOutput:
        formula = ClassifierScore(
            divergence, divergence_weight, target_confidence, joint_temperature, marginal_temperature, entropy_weight
        )
        if softplus_beta != 0:
            SmoothReLU(softplus_beta)  # raises for a value that it cannot take
        return io.NodeOutput(GuidanceScore(classifier, parse_labels(labels, classifier.labels), formula, softplus_beta))
