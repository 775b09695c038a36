"""The GUIDANCE_SCORE of a graph: what guidance climbs. Its formula is in guidance_core/classifier_score.py."""

from dataclasses import dataclass

from comfy_api.latest import io

from ...guidance_core.classifier_score import ClassifierScore
from .guidance_classifier import GuidanceClassifier

ScoreSocket = io.Custom("GUIDANCE_SCORE")


@dataclass(frozen=True)
class GuidanceScore:
    """A classifier, the numbers of the wanted classes (one, or one for each image), the formula, and the β of softplus
    in the place of the classifier's ReLUs (0 leaves them)."""

    classifier: GuidanceClassifier
    labels: tuple[int, ...]
    formula: ClassifierScore
    softplus_beta: float
