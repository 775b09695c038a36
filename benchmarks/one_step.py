"""One step of a sampler without the sampler: what it asks of a model."""

from contextlib import contextmanager

import comfy.model_management
import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers
import comfy.utils
import torch


@contextmanager
def prepared(model, conditions, latent: torch.Tensor, sigma: float = 0.6):
    """A function that predicts for each CONDITIONING, positive first, in one call of calc_cond_batch.

    None among the conditions is not evaluated, as ComfyUI does at cfg 1. Nested latents are packed, as in a sampler.
    """
    shapes = None
    if latent.is_nested:
        latent, shapes = comfy.utils.pack_latents(latent.unbind())
    latent = latent.to(model.load_device)
    convert = comfy.sampler_helpers.convert_cond
    named = {str(i): convert(condition) for i, condition in enumerate(conditions) if condition is not None}
    options = comfy.model_patcher.create_model_options_clone(model.model_options)
    comfy.sampler_helpers.prepare_model_patcher(model, named, options)
    comfy.model_management.load_models_gpu([model])
    model.pre_run()
    try:
        found = comfy.samplers.process_conds(model.model, latent, named, latent.device, latent_shapes=shapes)
        processed = [found.get(str(i)) for i in range(len(conditions))]
        sigmas = torch.full((len(latent),), sigma, device=latent.device)
        yield lambda: comfy.samplers.calc_cond_batch(model.model, processed, latent, sigmas, options)
    finally:
        model.cleanup()


def predict(model, conditions, latent: torch.Tensor | None = None, sigma: float = 0.6) -> list[torch.Tensor]:
    """The predictions of one step; by default for two of the demo model's latents."""
    if latent is None:
        latent = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with prepared(model, conditions, latent, sigma) as step:
        return step()
