"""One step of a sampler without the sampler: what it asks of a model."""

from contextlib import contextmanager

import comfy.model_management
import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers
import torch


@contextmanager
def prepared(model, conditions, latent: torch.Tensor, sigma: float = 0.6):
    """A function that predicts for each CONDITIONING, positive first, in one call of calc_cond_batch."""
    latent = latent.to(model.load_device)
    named = {str(i): comfy.sampler_helpers.convert_cond(condition) for i, condition in enumerate(conditions)}
    options = comfy.model_patcher.create_model_options_clone(model.model_options)
    comfy.sampler_helpers.prepare_model_patcher(model, named, options)
    comfy.model_management.load_models_gpu([model])
    model.pre_run()
    try:
        processed = list(comfy.samplers.process_conds(model.model, latent, named, latent.device).values())
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
