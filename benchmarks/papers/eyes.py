"""What looks at pictures, as feature extractors of torch-fidelity: Inception for ImageNet, the judge for the demo world."""

import pickle
from pathlib import Path

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import register_feature_extractor
from torch_fidelity.utils import create_feature_extractor

from ..class_judge import FEATURES, WEIGHTS, class_judge
from .kept import fingerprint

INCEPTION, LAYER = "inception-v3-compat", "2048"  # torch-fidelity's port of the network that FID is defined by
JUDGE = "entropy-guidance-class-judge"


class JudgeFeatures(FeatureExtractorBase):
    """Features of benchmarks/class_judge.py for pictures uint8 [B, 3, 32, 32]."""

    def __init__(self, name, features_list, feature_extractor_weights_path=None, **_):
        super().__init__(name, features_list)
        self.judge = class_judge(Path(feature_extractor_weights_path or WEIGHTS))

    @staticmethod
    def get_provided_features_list():
        return (str(FEATURES),)

    @staticmethod
    def get_default_feature_layer_for_metric(_metric):
        return str(FEATURES)

    @staticmethod
    def can_be_compiled():
        return False

    def forward(self, pictures: Tensor) -> tuple[Tensor]:
        return (self.judge(pictures / 255),)


register_feature_extractor(JUDGE, JudgeFeatures)


class Eyes:
    """Features float32 [B, F] of pictures uint8 [B, 3, H, W], on the GPU where there is one.

    weights: a file of Inception's or the judge's; None for torch-fidelity's own, which it downloads once, or for the
    judge that is trained here, once. fingerprint: tells eyes apart.
    """

    def __init__(self, twin: bool, weights: Path | None):
        if weights and not twin:  # read before torch-fidelity does, which would execute what a pickle says
            _check_pickle(weights)
        name, layer = (JUDGE, str(FEATURES)) if twin else (INCEPTION, LAYER)
        self._cuda = torch.cuda.is_available()
        self._network = create_feature_extractor(
            name, [layer], cuda=self._cuda, verbose=False, feature_extractor_weights_path=weights and str(weights)
        )
        file = weights or (WEIGHTS if twin else None)
        self.fingerprint = fingerprint(file) if file else name

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> Tensor:
        return self._network(pictures.cuda() if self._cuda else pictures)[0]


def _check_pickle(weights: Path) -> None:
    """Raises ValueError for a file that holds anything but weights."""
    try:
        torch.load(weights, weights_only=True, map_location="meta")
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"eyes: {weights} is not a state dict of torch-fidelity's Inception: {error}") from error
