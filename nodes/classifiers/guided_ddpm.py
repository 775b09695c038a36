"""DDPM as a sampler function of ComfyUI, whose mean moves along a score's gradient with the weight of the sine schedule.

The formulas are in guidance_core/ddpm_sine.py and ddpm_variance.py.
"""

import itertools
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from comfy.k_diffusion.sampling import default_noise_sampler
from comfy.samplers import CFGGuider
from tqdm.auto import trange

from ...guidance_core.classifier_guidance import per_sample
from ...guidance_core.ddpm_sine import DDPMSchedule, ddpm_schedule, kept_signal
from ...guidance_core.ddpm_variance import variance_bounds
from ...guidance_core.tilted_sampling import tilted_weights
from ..common.steps_to_draw import NO_STEP
from ..feedback import Feedback
from .guidance_score import GuidanceScore
from .score_gradient import ScoreGradient, is_flow, noise_scale, score_gradient
from .step_variance import LearnedVariance, ScheduledVariance

ROUNDING = 1e-5  # by which ComfyUI's own schedules, with a shift, begin above 1


@dataclass(frozen=True)
class GuidedDDPM:
    """A sampler function of ComfyUI. variance: one of VARIANCES. feedback: of the node."""

    score: GuidanceScore
    scale: float
    gamma: float
    tilt: float
    vae: object
    variance: str = "small"
    feedback: Feedback = Feedback()

    @torch.no_grad()
    def __call__(
        self,
        model: Any,
        x: torch.Tensor,
        sigmas: torch.Tensor,
        extra_args: dict[str, Any] | None = None,
        callback: Callable[..., Any] | None = None,
        disable: bool | None = None,
        noise_sampler: Callable[..., torch.Tensor] | None = None,
    ) -> torch.Tensor:
        extra_args = extra_args or {}
        sampling = model.inner_model.model_patcher.get_model_object("model_sampling")
        with self.feedback.saying_errors():
            levels = falling_levels(sigmas, is_flow(sampling))
        if len(levels) < 2:
            self.feedback.say_without_effect(NO_STEP)
            return x
        noise = noise_sampler or default_noise_sampler(x, seed=extra_args.get("seed"))
        # 1 − ᾱ and β would be 0 in float32 where there is almost no noise, and float64 is not to be had on every device.
        kept, lost, factor = kept_signal(levels, is_flow(sampling), noise_scale(sampling))
        schedule = ddpm_schedule(kept, lost, self.gamma, large=self.variance == "large")
        gradient = self._loaded_gradient(model.inner_model, x) if self._weighs_gradients(schedule) else None
        schedule = schedule.to(x)
        variances: LearnedVariance | ScheduledVariance = ScheduledVariance(schedule.variance)
        if self.variance == "learned":
            variances = LearnedVariance(model.inner_model, variance_bounds(kept, lost), x)
        factor, sigmas = factor.to(x), levels.to(x)
        with gradient or nullcontext():
            for i in trange(len(levels) - 1, disable=disable):
                x0 = model(x, sigmas[i] * x.new_ones(len(x)), **variances.asking(extra_args))
                if callback is not None:
                    callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": x0})
                with self.feedback.saying_errors():
                    variance = variances.of_step(i, x)
                mean = schedule.x0[i] * x0 + schedule.x[i] * factor[i] * x
                if gradient is not None:
                    pull = self._pull(gradient, model, x, x0, sigmas[i], factor[i], extra_args)
                    mean = mean + (variance + schedule.added[i]) * pull
                spread = variance.sqrt() * bool(levels[i + 1] > 0)  # a clean picture takes no noise
                following = mean + spread * noise(sigmas[i], sigmas[i + 1])
                x = following / factor[i + 1]
            if gradient is not None:
                self.feedback.say(f"{len(levels) - 1} steps, {gradient.how_sure()} in the last of them")
        return x

    def _weighs_gradients(self, schedule: DDPMSchedule) -> bool:
        """Whether any step has a weight for them; where it should and none has, the node says so."""
        if self.variance == "learned" or (schedule.variance + schedule.added).any():
            return True
        if self.scale:
            self.feedback.say_without_effect(
                "a single step to the picture has no variance, which is what weighs the classifier's gradient. That is as it should "
                "be where another sampler does the steps before; else give it more, or choose variance = large."
            )
        return False

    def _loaded_gradient(self, guider: CFGGuider, x: torch.Tensor) -> ScoreGradient | None:
        """Of the score, its models beside those of the sampling on their devices; None where nothing is to be guided."""
        if not self.scale:
            return None
        with self.feedback.saying_errors():
            gradient = score_gradient(self.score, guider.model_patcher, self.vae)
        second = getattr(guider, "uncond_model_patcher", None)  # DualModelGuider's
        in_use = [guider.model_patcher, *guider.loaded_models, *getattr(guider, "uncond_loaded", ())]
        in_use += [] if second is None else [second]
        # Room for one branch of guidance, better for both, as ComfyUI left it before the classifier came, and for a gradient.
        room = [guider.model_patcher.memory_required([n * len(x), *x.shape[1:]]) for n in (1, 2)]
        one, both = (max(memory, gradient.memory_of_one(x.shape)) for memory in room)
        with torch.inference_mode(False):  # as ScoreGradient.load has it
            comfy.model_management.load_models_gpu(
                [*in_use, *gradient.patchers], memory_required=both, minimum_memory_required=one
            )
        return gradient

    def _pull(
        self,
        gradient: ScoreGradient,
        model: Any,
        x: torch.Tensor,
        x0: torch.Tensor,
        sigma: torch.Tensor,
        factor: torch.Tensor,
        extra_args: dict[str, Any],
    ) -> torch.Tensor:
        """The weighted gradient [B, ...] along which a step's mean moves, in proportion to its variance, where the mask lets it."""
        options, mask = extra_args.get("model_options", {}), extra_args.get("denoise_mask")
        sigmas = sigma * x.new_ones(len(x))
        with self.feedback.saying_errors():
            direction, log_p = gradient(x, x0, sigmas, model.inner_model.model_patcher.model)
        gradient.tell_observers(options, sigmas, direction, log_p)
        if self.score.classifier.noise_aware:
            direction = direction / factor  # from a gradient in x to one in √ᾱ x0 + √(1 − ᾱ) n
        weights = self.scale * tilted_weights(log_p, self.tilt)
        pull = direction * per_sample(weights, x0)
        # What is protected is no matter of the classifier's.
        return pull if mask is None else pull * _mask_of_step(mask, model, sigma, options)


def _mask_of_step(mask: torch.Tensor, model: Any, sigma: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
    """What a step may change, as ComfyUI's model of inpainting finds it: Differential Diffusion has another mask in each."""
    of_step = options.get("denoise_mask_function")
    if of_step is None:
        return mask
    others = {"model": model.inner_model, "sigmas": model.sigmas}
    return of_step(sigma * sigma.new_ones(len(mask)), mask, extra_options=others)


def falling_levels(sigmas: torch.Tensor, flow: bool) -> torch.Tensor:
    """The noise levels of a sampling, each once and in float64 on the CPU: a step to the same level changes nothing. Above 1,
    a flow model's is 1: its signal there would rise again.

    Raises ValueError where they do not fall, and where they are none of the model's: flow models have those from 0 to 1.
    """
    levels = sigmas.cpu().double()
    for level in levels.tolist():
        if not 0 <= level <= (1 + ROUNDING if flow else sys.float_info.max):
            raise ValueError(
                f"sigmas: {level:.4g} is no noise level of this model, whose levels go from 0 (the picture) to "
                f"{'1' if flow else 'any number above'} (noise). Take the sigmas from a scheduler with this model."
            )
    levels = (levels.clamp(max=1) if flow else levels).unique_consecutive()
    for level, following in itertools.pairwise(levels.tolist()):
        if not following < level:
            raise ValueError(
                f"sigmas: {level:.4g} is followed by {following:.4g}, and the Guided DDPM Sampler takes noise levels that fall, "
                "from noise to the picture. Take out what turns them round, such as FlipSigmas."
            )
    return levels
