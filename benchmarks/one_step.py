"""One step of a sampler without the sampler: what it asks of a model."""

from contextlib import contextmanager
from dataclasses import dataclass

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers
import comfy.utils
import torch


@dataclass(frozen=True)
class Step:
    """What a sampler's step asks of a model."""

    model: comfy.model_base.BaseModel
    conditions: list  # as ComfyUI processes them, positive first
    latent: torch.Tensor
    sigmas: torch.Tensor
    options: dict

    def predictions(self) -> list[torch.Tensor]:
        """For each condition, in one call of calc_cond_batch."""
        return comfy.samplers.calc_cond_batch(self.model, self.conditions, self.latent, self.sigmas, self.options)

    def guided(self, scale: float) -> torch.Tensor:
        """As a KSampler with this cfg."""
        positive, negative = self.conditions
        return comfy.samplers.sampling_function(
            self.model, self.latent, self.sigmas, negative, positive, scale, self.options
        )


@contextmanager
def prepared(model, conditions, latent: torch.Tensor, sigma: float = 0.6):
    """A Step of a MODEL and its CONDITIONINGs.

    None among the conditions is not evaluated, as ComfyUI does at cfg 1. Nested latents are packed, as in a sampler.
    """
    shapes = None
    if latent.is_nested:
        latent, shapes = comfy.utils.pack_latents(latent.unbind())
    latent = latent.to(model.load_device)
    convert = comfy.sampler_helpers.convert_cond
    named = {str(i): convert(condition) for i, condition in enumerate(conditions) if condition is not None}
    options = comfy.model_patcher.create_model_options_clone(model.model_options)
    options["transformer_options"]["sample_sigmas"] = torch.tensor([sigma, 0.0], device=latent.device)
    comfy.sampler_helpers.prepare_model_patcher(model, named, options)
    comfy.model_management.load_models_gpu([model])
    model.pre_run()
    try:
        found = comfy.samplers.process_conds(model.model, latent, named, latent.device, latent_shapes=shapes)
        processed = [found.get(str(i)) for i in range(len(conditions))]
        sigmas = torch.full((len(latent),), sigma, device=latent.device)
        yield Step(model.model, processed, latent, sigmas, options)
    finally:
        model.cleanup()


def predict(model, conditions, latent: torch.Tensor | None = None, sigma: float = 0.6) -> list[torch.Tensor]:
    """The predictions of one step; by default for two of the demo model's latents."""
    if latent is None:
        latent = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with prepared(model, conditions, latent, sigma) as step:
        return step.predictions()
