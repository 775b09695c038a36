"""The gradient of a guidance score with respect to a model's x0 prediction, inside ComfyUI's sampling."""

import logging
import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import comfy.model_management
import torch
from comfy.hooks import AdditionalModelsHook, HookGroup
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.model_sampling import CONST, COSMOS_RFLOW, EPS
from comfy.patcher_extension import WrapperExecutor

from ...guidance_core.class_labels import labels_of_batch
from ...guidance_core.classifier_guidance import finite_or_zero, per_sample
from ...guidance_core.classifier_score import log_probability
from ...guidance_core.ddpm_sine import kept_signal
from ...guidance_core.smooth_relu import SmoothReLU
from ..common.want_of_memory import saying_what_to_change, with_fewer_at_once
from .confidence import how_sure
from .guidance_score import GuidanceScore
from .latent_decoder import LatentDecoder, check_mode, latent_decoder
from .normal_weights import NormalWeights

# In model options: functions that are called with a ScoreGradient and what its `tell_observers` is told.
OBSERVERS = "entropy_guidance_observers"
WITH_GRADIENTS = 2  # what a classifier takes, relative to what autograd keeps: its gradients come on top
GRAPH_MEMORY = 4  # what decoding for a gradient takes, relative to decoding alone: autograd keeps every layer's output


class ScoreGradient:
    """Used as `with gradient:` around a sampling, whose end frees what it made, whether that is good or bad.

    decoder: how a classifier of clean pictures sees the prediction; None for one that reads noise.
    """

    def __init__(self, score: GuidanceScore, decoder: LatentDecoder | None) -> None:
        self.score, self.decoder = score, decoder
        self._call = NormalWeights()
        self._outer: list[torch.Tensor | None] = []  # log p of the samplings inside of which the present one runs
        self._forget()

    def _forget(self) -> None:
        self._call.clear()
        # Classes [B] on the device, and how many pictures are looked at at once.
        self._batch: tuple[torch.Tensor, int] | None = None
        self._broken: torch.Tensor | None = None  # on the device: how many gradients were not finite
        self._log_p: torch.Tensor | None = None  # on the device: of the latest pictures [B]

    def how_sure(self) -> str:
        """How sure the classifier was the last time that it was asked in this sampling, in words. Reads the device."""
        assert self._log_p is not None  # it has been asked
        return how_sure(self._log_p.exp().tolist(), self.wanted(len(self._log_p)))

    def wanted(self, count: int) -> list[str]:
        """The names of the classes that so many pictures are led to."""
        names = self.score.classifier.labels
        return [names[label] for label in labels_of_batch(self.score.labels, count)]

    def tell_observers(
        self, model_options: dict[str, Any], sigma: torch.Tensor, gradient: torch.Tensor, log_p: torch.Tensor
    ) -> None:
        """Has others see a gradient [B, ...] and log p(y|·) [B] that guidance uses at noise levels σ [B]."""
        for observer in model_options.get(OBSERVERS, ()):
            observer(self, sigma, gradient, log_p)

    def load(
        self,
        executor: WrapperExecutor,
        patcher: ModelPatcher,
        shape: Sequence[int],
        *args: Any,
        model_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """A wrapper for ComfyUI's PREPARE_SAMPLING, which loads the patchers with the model. As a ModelPatcher's additional
        models they would have to be copied to each GPU of several, and the gradient is taken on one. shape: of the latents,
        by which it leaves memory to work in, here for as many as take what the gradient of one does."""
        with torch.inference_mode(
            False
        ):  # else a gradient needs copies of what is moved, which are tensors of that mode
            comfy.model_management.load_models_gpu(self.patchers)
        options = model_options or {}
        hooks = HookGroup()
        for hook in (*options.get("registered_hooks", HookGroup()).hooks, AdditionalModelsHook(self.patchers)):
            hooks.add(hook)
        latents = math.ceil(self.memory_of_one(shape) / patcher.memory_required([1, *shape[1:]]))
        shape = [max(shape[0], latents), *shape[1:]]
        return executor(patcher, shape, *args, model_options={**options, "registered_hooks": hooks}, **kwargs)

    def memory_of_one(self, shape: Sequence[int]) -> float:
        """Bytes that the gradient of one of the latents takes."""
        memory: float = WITH_GRADIENTS * self.score.classifier.kept
        if self.decoder is not None and self.decoder.patcher is not None:
            memory += GRAPH_MEMORY * self.decoder.memory_of(torch.empty(tuple(shape), device="meta"))
        return memory

    @property
    def patchers(self) -> list[Any]:
        """What ComfyUI has to load for a sampling."""
        patchers = self.score.classifier.patcher, self.decoder and self.decoder.patcher
        return [patcher for patcher in patchers if patcher is not None]

    def __enter__(self) -> None:
        self._outer.append(self._log_p)
        self._forget()

    def __exit__(self, *_: Any) -> None:
        broken = self._broken
        self._forget()
        self._log_p = self._outer.pop()
        if broken is not None and (count := int(broken)):
            logging.warning(
                "Classifier guidance: %d gradients were not finite; those pictures took their steps without guidance.",
                count,
            )

    @torch.inference_mode(False)
    def __call__(
        self, x: torch.Tensor, x0: torch.Tensor, sigma: torch.Tensor, model: BaseModel
    ) -> tuple[torch.Tensor, ...]:
        """∇S [B, C, ...] and log p(y|·) [B] of what is sampled at noise levels σ [B]; 0 and NaN where one is not finite.

        The gradient is taken at the prediction x0, or at x for a classifier that reads noise. Where memory runs out, fewer
        pictures are looked at at once. Raises PyTorch's OutOfMemoryError where it does for a single one.
        """
        _check_pictures(x0)
        with saying_what_to_change(self._short_of_memory(x0)):
            if self._batch is None or len(self._batch[0]) != len(x0):
                self._batch = self._labels_on(x0.device, len(x0)), self._at_once(x0)
            labels, at_once = self._batch
            in_parts = partial(self._in_parts, x0 if self.decoder else x, sigma, labels, model)
            (gradient, log_p), at_once = with_fewer_at_once(in_parts, at_once)
            self._batch = labels, at_once
        gradient, broken = finite_or_zero(gradient, log_p)
        self._log_p = torch.where(broken, torch.nan, log_p)
        self._broken = broken.sum() + (0 if self._broken is None else self._broken)
        return gradient, self._log_p

    def _labels_on(self, device: torch.device, count: int) -> torch.Tensor:
        return torch.tensor(labels_of_batch(self.score.labels, count), device=device)

    @torch.enable_grad()
    def _at_once(self, x0: torch.Tensor) -> int:
        """How many pictures to look at at once: as many as there is memory for, beside the weights."""
        patcher = self.score.classifier.patcher
        device = patcher.load_device if self.decoder else x0.device
        self._call.prepare(patcher.model, device)
        if self.decoder is not None and self.decoder.patcher is not None and self.decoder.decode is not None:
            patcher, device = self.decoder.patcher, self.decoder.patcher.load_device
            self._call.prepare(self.decoder.decode, device)
        needed = max(self.memory_of_one(x0.shape), 1)
        return min(max(int(patcher.get_free_memory(device) // needed), 1), len(x0))

    def _in_parts(
        self, seen: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor, model: BaseModel, at_once: int
    ) -> tuple[torch.Tensor, ...]:
        """∇S and log p of a batch, so many pictures at once."""
        parts = zip(seen.split(at_once), sigma.split(at_once), labels.split(at_once))
        return tuple(map(torch.cat, zip(*(self._gradient(*part, model) for part in parts))))

    def _short_of_memory(self, x0: torch.Tensor) -> str:
        """What to say where memory is too short."""
        height, width = x0.shape[-2:]
        cheaper = " Where the node has decode, choose taesd or half." if self.decoder and self.decoder.patcher else ""
        return (
            f"Classifier guidance: memory is too short for the gradient of one picture, of a latent of {width} × {height}. "
            f"Draw smaller pictures, or use a smaller classifier.{cheaper}"
        )

    @torch.enable_grad()
    def _gradient(
        self, seen: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor, model: BaseModel
    ) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = seen.detach().clone().float().requires_grad_()
        logits = self._see_clean(self.decoder, leaf) if self.decoder else self._see_noisy(leaf, sigma.clone(), model)
        detached, labels = logits.detach(), labels.to(logits.device)
        slope = self.score.formula.logit_gradient(detached, labels)
        # Of size 1 on its way back through half-precision decoders, where a sure classifier's would be lost.
        size = slope.abs().amax(1, keepdim=True).clamp(min=torch.finfo(slope.dtype).tiny)
        (gradient,) = torch.autograd.grad(logits, leaf, (slope / size).to(logits.dtype))
        size = size.to(gradient.device)[:, 0]
        return gradient * per_sample(size, gradient), log_probability(detached, labels).to(gradient.device)

    def _see_clean(self, decoder: LatentDecoder, x0: torch.Tensor) -> torch.Tensor:
        pictures = decoder.images(self._call, x0)
        return self._classify(pictures.to(self.score.classifier.patcher.load_device))

    def _see_noisy(self, x: torch.Tensor, sigma: torch.Tensor, model: BaseModel) -> torch.Tensor:
        sampling = model.model_sampling
        kept, _, factor = kept_signal(sigma, is_flow(sampling), noise_scale(sampling))
        x = x[:, :, 0] if x.ndim == 5 else x
        return self._classify(x * per_sample(factor, x), kept)

    def _classify(self, *inputs: torch.Tensor) -> torch.Tensor:
        beta = self.score.softplus_beta
        with SmoothReLU(beta) if beta else nullcontext():
            return self._call(self.score.classifier.patcher.model, *inputs)


def _check_pictures(x0: torch.Tensor) -> None:
    if x0.ndim == 5 and x0.shape[2] != 1:
        raise ValueError(f"Classifier guidance does not know video: the latent has {x0.shape[2]} frames.")
    if x0.ndim not in (4, 5):
        raise ValueError(
            f"Classifier guidance knows pictures, not sound or video with sound: the latent's shape is {[*x0.shape]}."
        )


def score_gradient(score: GuidanceScore, model: ModelPatcher, vae: Any, decode: str = "auto") -> ScoreGradient:
    """The gradient of a score for a model. Raises ValueError where classifier, `vae` or `decode` do not fit it, and
    RuntimeError for models of a kind that `is_flow` does not know."""
    check_mode(decode)  # also where nothing is decoded
    is_flow(model.get_model_object("model_sampling"))
    _check_classes(score, model)
    if not score.classifier.noise_aware:
        return ScoreGradient(score, latent_decoder(model, vae, decode))
    reads, latents = score.classifier.patcher.model.channels, model.get_model_object("latent_format").latent_channels
    if reads != latents:
        raise ValueError(
            f"score: the noise-aware classifier '{score.classifier.name}' reads {reads} channels, but the model's "
            f"latents have {latents}. It fits models of its own space only; classifiers of clean images fit all."
        )
    return ScoreGradient(score, None)


def _check_classes(score: GuidanceScore, model: ModelPatcher) -> None:
    """Of a model that draws classes itself: its numbers have to mean what the classifier's do."""
    known, drawn = len(score.classifier.labels), len(getattr(model.model, "class_names", ()))
    if drawn not in (0, known):
        raise ValueError(
            f"score: the classifier '{score.classifier.name}' knows {known} classes, and the model draws {drawn}. Use a "
            "classifier of the model's own classes, such as one of ImageNet for ImageNet's models."
        )


def is_flow(model_sampling: Any) -> bool:
    """Whether x = (1 − σ)x0 + σn rather than x0 + σn. Raises RuntimeError for models of neither kind."""
    if isinstance(model_sampling, CONST):
        return True
    if isinstance(model_sampling, (EPS, COSMOS_RFLOW)):  # and what derives from EPS: V prediction, EDM
        return False
    kind = type(model_sampling).__bases__[-1].__name__  # ComfyUI derives it from a schedule and from what is predicted
    raise RuntimeError(
        f"model: classifier guidance needs one of noise, V, EDM or flow prediction, and {kind} is none of them."
    )


def noise_scale(model_sampling: Any) -> float:
    """s of a flow model's x = (1 − σ)x0 + sσn: 8 of HiDream O1, or what ModelNoiseScale sets; 1 of all others."""
    return getattr(model_sampling, "noise_scale", 1.0)
