"""What guidance shows a classifier: pictures as they are, and as a model sees them from the noise of a sampling.

A classifier of pictures is shown the model's prediction of the finished picture, a noise-aware one the noise itself.
"""

from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher

from ...guidance_core.classifier_guidance import per_sample
from ...guidance_core.ddpm_sine import kept_signal
from ..classifiers.guidance_classifier import GuidanceClassifier
from ..classifiers.latent_decoder import LatentDecoder, check_mode, latent_decoder
from ..classifiers.normal_weights import NormalWeights
from ..classifiers.score_gradient import is_flow, noise_scale

FINISHED = 1.0  # the percent of a picture without noise


class PictureView:
    """Pictures as they are."""

    def finished(self, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """A classifier's inputs for finished pictures [B, 3, S, S] in 0..1."""
        return (pictures,)


class PredictionView(PictureView):
    """Pictures that a model predicts from what noise leaves of them."""

    def __init__(self, model: ModelPatcher, conditioning: Any, vae: Any, decoder: LatentDecoder) -> None:
        self.model, self.conditioning, self.vae, self.decoder = model, conditioning, vae, decoder

    def finished(self, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The same, as large as the decoder makes predictions of them: batches hold both."""
        return (F.interpolate(pictures, self.decoder.size_of(pictures), mode="area"),)

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Latents of pictures [B, 3, S, S] in 0..1 as the VAE gives them, or pixel-space models' pixels."""
        if self.decoder.mode == "pixels":
            return (pictures - self.decoder.shift) / self.decoder.scale
        pixels = pictures.movedim(1, -1)
        if self.vae.latent_dim == 2:
            return self.vae.encode(pixels)
        return torch.cat([self.vae.encode(picture) for picture in pixels.split(1)])  # together they were a video

    def unfinished(self, latents: torch.Tensor, percent: float, seeds: list[int]) -> tuple[torch.Tensor, ...]:
        """A classifier's inputs for latents [B, ...] with noise of B seeds, after a share of the sampling."""
        x0 = self.model.model.process_latent_in(self._predict(latents, percent, seeds))
        call = NormalWeights()
        return (torch.cat([self.decoder.images(call, part).cpu() for part in x0.split(self._at_once(x0))]),)

    def _at_once(self, x0: torch.Tensor) -> int:
        """How many pictures the decoder, which is loaded here, has memory for."""
        if self.decoder.patcher is None:
            return len(x0)
        needed, device = self.decoder.memory_of(x0), self.decoder.patcher.load_device
        comfy.model_management.load_models_gpu([self.decoder.patcher], memory_required=needed)
        return min(max(int(self.decoder.patcher.get_free_memory(device) // needed), 1), len(x0))

    def _predict(self, latents: torch.Tensor, percent: float, seeds: list[int]) -> torch.Tensor:
        """The model's x0: one step of Euler from a noise level to none."""
        sigmas = torch.tensor([_sigma(self.model, percent), 0.0])
        euler = comfy.samplers.sampler_object("euler")
        return comfy.sample.sample_custom(
            self.model, _noise(latents, seeds), 1.0, euler, sigmas, self.conditioning, self.conditioning, latents,
            disable_pbar=True, seed=seeds[0],
        )  # fmt: skip


class NoiseView(PredictionView):
    """Noisy latents, and the share ᾱ of signal in them."""

    def __init__(self, model: ModelPatcher, vae: Any, decoder: LatentDecoder) -> None:
        super().__init__(model, None, vae, decoder)

    def finished(self, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self._noisy(self.encode(pictures), 0.0, [0] * len(pictures))

    def unfinished(self, latents: torch.Tensor, percent: float, seeds: list[int]) -> tuple[torch.Tensor, ...]:
        return self._noisy(latents, _sigma(self.model, percent), seeds)

    def _noisy(self, latents: torch.Tensor, sigma: float, seeds: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        x0 = self.model.model.process_latent_in(latents.cpu())
        x0 = x0[:, :, 0] if x0.ndim == 5 else x0
        sampling = self.model.get_model_object("model_sampling")
        sigmas = torch.full((len(x0),), sigma)
        x = sampling.noise_scaling(per_sample(sigmas, x0), _noise(x0, seeds), x0)
        kept, _, factor = kept_signal(sigmas, is_flow(sampling), noise_scale(sampling))
        return x * per_sample(factor, x), kept


def guidance_view(
    classifier: GuidanceClassifier,
    model: ModelPatcher | None = None,
    conditioning: Any = None,
    vae: Any = None,
    decode: str = "auto",
) -> PictureView:
    """How a classifier is shown pictures. Raises ValueError where what it takes is not wired, or does not fit."""
    check_mode(decode)
    if model is None:
        if classifier.noise_aware:
            raise ValueError(
                f"model: the noise-aware classifier '{classifier.name}' reads a model's noisy latents. Wire that model, "
                "and its VAE."
            )
        return PictureView()
    if classifier.noise_aware:
        return NoiseView(model, vae, latent_decoder(model, vae, "full"))
    if conditioning is None:
        raise ValueError(
            "conditioning: a model is wired, so it needs a prompt for its predictions. Wire a text encoding; that of an "
            "empty prompt fits guidance without a prompt."
        )
    return PredictionView(model, conditioning, vae, latent_decoder(model, vae, decode))


def parse_percents(text: str) -> tuple[float, ...]:
    """Shares of the sampling, each below 1, separated by commas; the finished picture comes last. Raises ValueError."""
    try:
        percents = sorted({float(word) for word in text.split(",") if word.strip()})
    except ValueError:
        percents = [-1.0]
    if not all(0 <= percent < 1 for percent in percents):
        raise ValueError(
            f"percents = {text!r}: write shares of the sampling from 0 up to 1, separated by commas, such as 0.25, 0.5, "
            "0.75."
        )
    return (*percents, FINISHED)


def _sigma(model: ModelPatcher, percent: float) -> float:
    sampling = model.get_model_object("model_sampling")
    return min(float(sampling.percent_to_sigma(percent)), float(sampling.sigma_max))


def _noise(latents: torch.Tensor, seeds: list[int]) -> torch.Tensor:
    """The noise that each picture would get alone."""
    return torch.cat([comfy.sample.prepare_noise(latent, seed) for latent, seed in zip(latents.split(1), seeds)])
