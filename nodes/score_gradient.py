"""The gradient of a guidance score with respect to a model's x0 prediction, inside ComfyUI's sampling."""

import logging
from contextlib import nullcontext

import torch
from comfy.model_patcher import ModelPatcher
from comfy.model_sampling import CONST, EPS

from ..guidance_core.class_labels import labels_of_batch
from ..guidance_core.classifier_guidance import finite_or_none, per_sample
from ..guidance_core.classifier_score import log_probability
from ..guidance_core.ddpm_sine import kept_signal
from ..guidance_core.smooth_relu import SmoothReLU
from .guidance_classifier import NormalWeights
from .latent_decoder import LatentDecoder, latent_decoder
from .score import GuidanceScore


class ScoreGradient:
    """Used as `with gradient:` around a sampling, whose end frees what it made, whether that is good or bad.

    decoder: how a classifier of clean pictures sees the prediction; None for one that reads noise.
    """

    def __init__(self, score: GuidanceScore, decoder: LatentDecoder | None):
        self.score, self.decoder = score, decoder
        self._call = NormalWeights()
        self._broken = None  # on the device: how many gradients were not finite

    @property
    def patchers(self) -> list:
        """What ComfyUI has to load for a sampling."""
        decoder = self.decoder and self.decoder.patcher
        return [patcher for patcher in (self.score.classifier.patcher, decoder) if patcher is not None]

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
    def __call__(self, x: torch.Tensor, x0: torch.Tensor, sigma: torch.Tensor, model) -> tuple[torch.Tensor, ...]:
        """∇S [B, C, ...], zero where it is not finite, and log p(y|·) [B], for what is sampled at noise levels σ [B].

        The gradient is taken at the prediction x0, or at x for a classifier that reads noise.
        """
        if x0.ndim == 5 and x0.shape[2] != 1:
            raise ValueError(f"Classifier guidance does not know video: the latent has {x0.shape[2]} frames.")
        labels = torch.tensor(labels_of_batch(self.score.labels, len(x0)), device=x0.device)
        with torch.enable_grad():
            leaf = (x0 if self.decoder else x).detach().clone().float().requires_grad_()
            logits = self._see_clean(leaf, model) if self.decoder else self._see_noisy(leaf, sigma.clone(), model)
            detached = logits.detach()
            (gradient,) = torch.autograd.grad(
                logits, leaf, self.score.formula.logit_gradient(detached, labels).to(logits.dtype)
            )
        gradient, broken = finite_or_none(gradient)
        self._broken = broken.sum() + (0 if self._broken is None else self._broken)
        return gradient, log_probability(detached, labels)

    def _see_clean(self, x0, model) -> torch.Tensor:
        return self._classify(self.decoder.images(self._call, x0, model))

    def _see_noisy(self, x, sigma, model) -> torch.Tensor:
        kept, factor = kept_signal(sigma, is_flow(model.model_sampling))
        x = x[:, :, 0] if x.ndim == 5 else x
        return self._classify(x * per_sample(factor, x), kept)

    def _classify(self, *inputs) -> torch.Tensor:
        beta = self.score.softplus_beta
        with SmoothReLU(beta) if beta else nullcontext():
            return self._call(self.score.classifier.patcher.model, *inputs)


def score_gradient(score: GuidanceScore, model: ModelPatcher, vae, decode: str = "auto") -> ScoreGradient:
    """The gradient of a score for a model. Raises ValueError where classifier, `vae` or `decode` do not fit it."""
    if not score.classifier.noise_aware:
        return ScoreGradient(score, latent_decoder(model, vae, decode))
    reads, latents = score.classifier.patcher.model.channels, model.get_model_object("latent_format").latent_channels
    if reads != latents:
        raise ValueError(
            f"score: the noise-aware classifier '{score.classifier.name}' reads {reads} channels, but the model's "
            f"latents have {latents}. It fits models of its own space only; classifiers of clean images fit all."
        )
    return ScoreGradient(score, None)


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
