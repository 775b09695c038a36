"""The gradient of a guidance score with respect to a model's x0 prediction, inside ComfyUI's sampling."""

import logging
from contextlib import nullcontext

import torch
from comfy.model_sampling import CONST, EPS

from ..guidance_core.class_labels import labels_of_batch
from ..guidance_core.classifier_guidance import finite_or_none
from ..guidance_core.classifier_score import log_probability
from ..guidance_core.smooth_relu import SmoothReLU
from .guidance_classifier import NormalWeights
from .latent_decoder import LatentDecoder
from .score import GuidanceScore


class ScoreGradient:
    """Used as `with gradient:` around a sampling, whose end frees what it made, whether that is good or bad."""

    def __init__(self, score: GuidanceScore, decoder: LatentDecoder):
        self.score, self.decoder = score, decoder
        self._call = NormalWeights()
        self._broken = None  # on the device: how many gradients were not finite

    @property
    def patchers(self) -> list:
        """What ComfyUI has to load for a sampling."""
        return [patcher for patcher in (self.score.classifier.patcher, self.decoder.patcher) if patcher is not None]

    def __enter__(self):
        self._broken = None

    def __exit__(self, *_):
        if self._broken is not None and (count := int(self._broken)):
            logging.warning(
                "Classifier guidance: %d gradients were not finite; those pictures took their steps without guidance.",
                count,
            )
        self._broken = None
        self._call.clear()

    @torch.inference_mode(False)
    def __call__(self, x0: torch.Tensor, model) -> tuple[torch.Tensor, torch.Tensor]:
        """∇S at x0 [B, C, ...], zero where it is not finite, and log p(y|x0) [B]."""
        if x0.ndim == 5 and x0.shape[2] != 1:
            raise ValueError(f"Classifier guidance does not know video: the latent has {x0.shape[2]} frames.")
        labels = torch.tensor(labels_of_batch(self.score.labels, len(x0)), device=x0.device)
        with torch.enable_grad():
            leaf = x0.detach().clone().float().requires_grad_()
            images = self.decoder.images(self._call, leaf, model)
            with self._smoothed():
                logits = self._call(self.score.classifier.patcher.model, images)
            detached = logits.detach()
            (gradient,) = torch.autograd.grad(
                logits, leaf, self.score.formula.logit_gradient(detached, labels).to(logits.dtype)
            )
        gradient, broken = finite_or_none(gradient)
        self._broken = broken.sum() + (0 if self._broken is None else self._broken)
        return gradient, log_probability(detached, labels)

    def _smoothed(self):
        return SmoothReLU(self.score.softplus_beta) if self.score.softplus_beta else nullcontext()


def is_flow(model_sampling) -> bool:
    """Whether x = (1 − σ)x0 + σn rather than x0 + σn. Raises RuntimeError for models of neither kind."""
    if isinstance(model_sampling, CONST):
        return True
    if isinstance(model_sampling, EPS):  # and what derives from it: V prediction, EDM
        return False
    raise RuntimeError(
        "Classifier guidance needs a model of noise, V, EDM or flow prediction, and "
        f"{type(model_sampling).__mro__[2].__name__} is none of them."
    )
