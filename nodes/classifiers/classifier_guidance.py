"""Classifier guidance in ComfyUI's sampling: when the gradient of a score is taken, and how far it moves the prediction.

The formulas are in guidance_core/classifier_guidance.py and guidance_core/tilted_sampling.py.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.patcher_extension import WrapperExecutor

from ...guidance_core.classifier_guidance import at_scale_of, noise_share, per_sample, x0_shift
from ...guidance_core.number_range import check_number
from ...guidance_core.sampling_steps import step_at
from ...guidance_core.tilted_sampling import tilted_weights
from ..common import PercentWindow
from ..feedback import Feedback, StepCount
from .score_gradient import ScoreGradient, is_flow, tell_observers


@dataclass
class ClassifierGuidance:
    """A sampler_post_cfg_function of ComfyUI: moves the guided prediction."""

    gradient: ScoreGradient
    scale: float
    tilt: float
    normalize: bool
    window: PercentWindow
    every: int
    feedback: Feedback
    _schedule: tuple[list[float], float, float] | None = field(default=None, init=False)  # of the present sampling
    _steps: StepCount = field(default_factory=StepCount, init=False)  # of the same: those with a gradient

    def __post_init__(self) -> None:
        check_number("scale", self.scale, lowest=0)
        check_number("tilt", self.tilt)
        check_number("every", self.every, lowest=1)

    def sample(self, executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Any:
        """A wrapper for ComfyUI's OUTER_SAMPLE: says what was done, or why nothing was."""
        outer = self._schedule, self._steps
        self._schedule, self._steps = None, StepCount()
        try:
            with self.gradient:
                result = executor(*args, **kwargs)
                self._say_what_was_done()
            return result
        finally:
            self._schedule, self._steps = outer

    def _say_what_was_done(self) -> None:
        guided, steps = self._steps.read()
        if guided:
            self.feedback.say(f"{guided} of {steps} steps, {self.gradient.how_sure()} in the last of them")
        elif not steps:
            self.feedback.say_without_effect(
                "its guider gives nodes no prediction to move. Use a KSampler or CFGGuider."
            )
        elif self.every > 1:
            self.feedback.say_without_effect(
                f"every = {self.every} left out the steps that the window holds. Lower it."
            )
        else:
            self.feedback.say_without_effect(self.window.has_no_step)

    def __call__(self, args: dict[str, Any]) -> torch.Tensor:
        x0, sigma, model = args["denoised"], args["sigma"], args["model"]
        is_time = self._is_time(sigma, args["model_options"], model.model_sampling)
        self._steps.note(sigma, args["model_options"].get("transformer_options", {}), is_time)
        if not is_time:
            return x0
        with self.feedback.saying_errors():
            gradient, log_p = self.gradient(args["input"], x0, sigma, model)
        tell_observers(args["model_options"], sigma, gradient, log_p)
        flow = is_flow(model.model_sampling)
        if self.normalize:
            gradient, strength = at_scale_of(gradient, x0), noise_share(sigma, flow)
        else:
            strength = x0_shift(sigma, flow)
        strength = strength * self.scale * self.every * tilted_weights(log_p, self.tilt)
        return x0 + (gradient * per_sample(strength, x0)).to(x0.dtype)

    def _is_time(self, sigma: torch.Tensor, model_options: dict[str, Any], model_sampling: Any) -> bool:
        if self.window.is_everything and self.every == 1:  # spares reading sigma, which waits for the device
            return True
        if self._schedule is None:
            steps = model_options["transformer_options"]["sample_sigmas"].tolist()
            self._schedule = steps, *self.window.sigmas(model_sampling)
        steps, start, end = self._schedule
        now = sigma[0].item()
        return end <= now <= start and step_at(now, steps) % self.every == 0
