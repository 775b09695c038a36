"""What the sampler asks of a model in one step."""

import comfy.model_management
import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers
import torch


def predict(model, conditions, latent=None, sigma=0.6) -> list[torch.Tensor]:
    """The prediction for each CONDITIONING, positive first, from one call of calc_cond_batch."""
    if latent is None:
        latent = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    named = {str(i): comfy.sampler_helpers.convert_cond(condition) for i, condition in enumerate(conditions)}
    options = comfy.model_patcher.create_model_options_clone(model.model_options)
    comfy.sampler_helpers.prepare_model_patcher(model, named, options)
    comfy.model_management.load_models_gpu([model])
    model.pre_run()
    try:
        processed = comfy.samplers.process_conds(model.model, latent, named, latent.device)
        sigmas = torch.full((len(latent),), sigma)
        return comfy.samplers.calc_cond_batch(model.model, list(processed.values()), latent, sigmas, options)
    finally:
        model.cleanup()
