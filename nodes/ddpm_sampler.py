"""The DDPM sampler with classifier guidance on a sine schedule, as the papers use it.

The formulas are in guidance_core/ddpm_sine.py.
"""

from dataclasses import dataclass

import comfy.model_management
import comfy.samplers
import torch
from comfy.k_diffusion.sampling import default_noise_sampler
from comfy_api.latest import io
from tqdm.auto import trange

from ..guidance_core.classifier_guidance import per_sample
from ..guidance_core.ddpm_sine import ddpm_schedule, kept_signal
from ..guidance_core.tilted_sampling import tilted_weights
from .classifiers.guidance_score import GuidanceScore, ScoreSocket
from .classifiers.score_gradient import ScoreGradient, is_flow, score_gradient
from .common import CATEGORY, TILT, VAE, check_number


class EntropyGuidanceDDPMSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EntropyGuidanceDDPMSampler",
            display_name="Guided DDPM Sampler",
            category=CATEGORY,
            description="The papers' own sampler: DDPM, whose mean moves along the score's gradient, with a strength "
            "that rises and falls over the steps like a sine. For SamplerCustom and SamplerCustomAdvanced.",
            search_aliases=["classifier guidance", "ddpm", "ancestral"],
            inputs=[
                ScoreSocket.Input("score", tooltip="From Guidance Score: the classifier and the wanted class."),
                io.Float.Input(
                    "scale", default=1.0, min=0.0, max=100000.0, step=0.1,
                    tooltip="Strength of guidance: factor of the gradient. 0 is DDPM without guidance.",
                ),
                io.Float.Input(
                    "gamma", default=0.3, min=0.0, max=10.0, step=0.05,
                    tooltip="Size γ of the sine that is added to each step's own variance as the weight of guidance, as "
                    "a share of the largest variance. The paper uses 0.3; 0 is plain DDPM guidance.",
                ),
                TILT,
                VAE,
            ],
            outputs=[io.Sampler.Output(tooltip="The sampler: wire it to SamplerCustom or SamplerCustomAdvanced.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, score, scale, gamma, tilt, vae=None) -> io.NodeOutput:
        check_number("scale", scale, lowest=0)
        check_number("gamma", gamma, lowest=0)
        check_number("tilt", tilt)
        return io.NodeOutput(comfy.samplers.KSAMPLER(GuidedDDPM(score, scale, gamma, tilt, vae)))


@dataclass(frozen=True)
class GuidedDDPM:
    """A sampler function of ComfyUI."""

    score: GuidanceScore
    scale: float
    gamma: float
    tilt: float
    vae: object

    @torch.no_grad()
    def __call__(self, model, x, sigmas, extra_args=None, callback=None, disable=None):
        extra_args = extra_args or {}
        patcher = model.inner_model.model_patcher
        network, flow = patcher.model, is_flow(patcher.get_model_object("model_sampling"))
        gradient = score_gradient(self.score, patcher, self.vae)
        comfy.model_management.load_models_gpu([patcher, *gradient.patchers])
        noise = default_noise_sampler(x, seed=extra_args.get("seed"))
        kept, factor = kept_signal(sigmas, flow)
        schedule = ddpm_schedule(kept, self.gamma)
        with gradient:
            for i in trange(len(sigmas) - 1, disable=disable):
                x0 = model(x, sigmas[i] * x.new_ones(len(x)), **extra_args)
                if callback is not None:
                    callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": x0})
                mean = schedule.x0[i] * x0 + schedule.x[i] * factor[i] * x
                if self.scale:
                    pull = self._pull(gradient, x, x0, sigmas[i], factor[i], network)
                    mean = mean + (schedule.variance[i] + schedule.added[i]) * pull
                following = mean + schedule.variance[i].sqrt() * noise(sigmas[i], sigmas[i + 1])
                x = following / factor[i + 1]
        return x

    def _pull(self, gradient: ScoreGradient, x, x0, sigma, factor, network) -> torch.Tensor:
        direction, log_p = gradient(x, x0, sigma * x.new_ones(len(x)), network)
        if self.score.classifier.noise_aware:
            direction = direction / factor  # from a gradient in x to one in √ᾱ x0 + √(1 − ᾱ) n
        weights = self.scale * tilted_weights(log_p, self.tilt)
        return direction * per_sample(weights, x0)
