"""Classifier guidance in ComfyUI's sampling: when the gradient of a score is taken, and how far it moves the prediction.

The formulas are in guidance_core/classifier_guidance.py, guided_steps.py and tilted_sampling.py.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP

from ...guidance_core.classifier_guidance import at_scale_of, noise_share, per_sample, x0_shift
from ...guidance_core.guided_steps import guided_steps
from ...guidance_core.number_range import check_number, whole_number
from ...guidance_core.sampling_steps import step_taken
from ...guidance_core.tilted_sampling import tilted_weights
from ..common.percent_window import PercentWindow
from ..common.steps_to_draw import NO_STEP, has_a_step
from ..feedback import Feedback, StepCount
from .score_gradient import ScoreGradient, is_flow, noise_scale

KEY = "entropy_guidance_apply"
# Core's LazyCache, which keeps what the wrappers within its own do in a step, and does it again in others.
LAZY_CACHE = "lazycache"
AFTER_CFG = "sampler_post_cfg_function"


@dataclass
class ClassifierGuidance:
    """Moves the prediction of a sampling's guider, whatever that is made of."""

    gradient: ScoreGradient
    scale: float
    tilt: float
    normalize: bool
    window: PercentWindow
    every: int
    feedback: Feedback
    _schedule: "_Schedule | None" = field(default=None, init=False)  # of the present sampling
    _steps: StepCount = field(default_factory=StepCount, init=False)  # of the same: those with a gradient

    def __post_init__(self) -> None:
        check_number("scale", self.scale, lowest=0)
        check_number("tilt", self.tilt)
        self.every = whole_number("every", self.every, lowest=1)  # a linked one may be 2.0

    def add_to(self, model: ModelPatcher) -> None:
        """Adds the wrappers to a ModelPatcher."""
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, self.sample)
        model.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, KEY, self.gradient.load)

    def sample(self, executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Any:
        """A wrapper for ComfyUI's OUTER_SAMPLE: says what was done, or why nothing was."""
        outer = self._schedule, self._steps
        self._schedule, self._steps = None, StepCount()
        try:
            with self.gradient, self._following(executor.class_obj.model_options):
                result = executor(*args, **kwargs)
                if has_a_step(*args, **kwargs):
                    self._say_what_was_done()
                else:
                    self.feedback.say_without_effect(NO_STEP)
            return result
        finally:
            self._schedule, self._steps = outer

    def _say_what_was_done(self) -> None:
        guided, steps = self._steps.read()
        if guided:
            self.feedback.say(f"{guided} of {steps} steps, {self.gradient.how_sure()} in the last of them")
        elif not steps:
            self._warn("its guider gives nodes no prediction to move. Use a KSampler or CFGGuider.")
        elif self.every > 1 and self._schedule is not None and self._schedule.guided:
            self._warn(
                f"its sampler has steps of its own, and none of them is one that every = {self.every} guides. Set it to 1."
            )
        else:
            self._warn(self.window.why_no_step)

    def _warn(self, why_not: str) -> None:
        self.feedback.warn_without_effect("Classifier guidance", why_not)

    @contextmanager
    def _following(self, model_options: dict[str, Any]) -> Iterator[None]:
        """Within, `predict` is in the model options of a sampling: next to the guider, so that guidance by other wrappers
        comes on top, and behind the classifiers of nodes before; but around a cache, which is to keep predictions without it.
        Other packs may sample several times with these options."""
        wrappers = model_options["transformer_options"]["wrappers"]
        there = wrappers.get(WrappersMP.PREDICT_NOISE, {})
        others = [(key, of_key) for key, of_key in there.items() if key != KEY]
        place = next((i for i, (key, _) in enumerate(others) if key == LAZY_CACHE), len(others))
        ours = (KEY, [self.predict, *there.get(KEY, ())])
        wrappers[WrappersMP.PREDICT_NOISE] = dict([*others[:place], ours, *others[place:]])
        try:
            yield
        finally:
            wrappers[WrappersMP.PREDICT_NOISE] = there

    def predict(
        self,
        executor: WrapperExecutor,
        x: torch.Tensor,
        timestep: torch.Tensor,
        model_options: dict[str, Any] = {},
        seed: int | None = None,
    ) -> torch.Tensor:
        """A wrapper for ComfyUI's PREDICT_NOISE: the guider's x0 prediction, moved."""
        sigma, guider = timestep, executor.class_obj
        model = guider.inner_model
        factor = self._factor(sigma, model_options, model.model_sampling)
        self._steps.note(sigma, model_options.get("transformer_options", {}), factor > 0)
        if not factor:
            return executor(x, timestep, model_options, seed)
        negative = _NegativeOfSampler(guider.model_options, model_options)
        x0 = executor(x, timestep, negative.model_options, seed)
        with self.feedback.saying_errors():
            gradient, log_p = self.gradient(x, x0, sigma, model)
        self.gradient.tell_observers(model_options, sigma, gradient, log_p)
        strength = self._share(sigma, model.model_sampling)
        if self.normalize:
            gradient = at_scale_of(gradient, x0)
        strength = strength * self.scale * factor * tilted_weights(log_p, self.tilt)
        shift = (gradient * per_sample(strength, x0)).to(x0.dtype)
        negative.move(shift)
        return x0 + shift

    def _share(self, sigma: torch.Tensor, model_sampling: Any) -> torch.Tensor:
        """How far guidance moves a prediction at noise levels σ, beside a gradient of whatever size."""
        flow = is_flow(model_sampling)
        return noise_share(sigma, flow) if self.normalize else x0_shift(sigma, flow, noise_scale(model_sampling))

    def _factor(self, sigma: torch.Tensor, model_options: dict[str, Any], model_sampling: Any) -> float:
        """How many times its own share an evaluation's guidance has; 0 where it has none."""
        if self.window.is_everything and self.every == 1:  # spares reading sigma, which waits for the device
            return 1.0
        if self._schedule is None:
            sigmas = model_options["transformer_options"]["sample_sigmas"].tolist()

            def share(level: float) -> float:
                return float(self._share(torch.tensor(level, dtype=torch.float64), model_sampling))

            self._schedule = _Schedule(sigmas, self.window.sigmas(model_sampling), self.every, share)
        # Once a step this waits for the device: which of a sampler's steps it is in, nothing but sigma tells.
        return self._schedule.factor(sigma[0].item())


class _NegativeOfSampler:
    """The negative prediction that a `_cfg_pp` sampler takes beside the guided one, in a function of its own after CFG. Such a
    sampler takes the noise of a picture from it: were it not moved alike, a step would have all of a shift, not its share."""

    def __init__(self, of_guider: dict[str, Any], model_options: dict[str, Any]) -> None:
        """of_guider, model_options: without and with what the sampler has added."""
        self.model_options = model_options
        self._given: torch.Tensor | None = None
        functions, nodes = model_options.get(AFTER_CFG, []), len(of_guider.get(AFTER_CFG, []))
        if len(functions) > nodes:
            of_sampler = [self._giving_a_copy(function) for function in functions[nodes:]]
            self.model_options = {**model_options, AFTER_CFG: [*functions[:nodes], *of_sampler]}

    def _giving_a_copy(
        self, function: Callable[[dict[str, Any]], torch.Tensor]
    ) -> Callable[[dict[str, Any]], torch.Tensor]:
        """The sampler's function, with a negative prediction of its own, which may be moved when it has it."""

        def with_a_copy(args: dict[str, Any]) -> torch.Tensor:
            if self._given is None:
                self._given = args["uncond_denoised"].clone()
            return function({**args, "uncond_denoised": self._given})

        return with_a_copy

    def move(self, shift: torch.Tensor) -> None:
        if self._given is not None:
            self._given.add_(shift)


class _Schedule:
    """Of a sampling: which of its evaluations are guided.

    They have to lie in the window themselves. With every = 1 that is all; otherwise they belong to a guided step, as the
    schedule counts them, wherever in it a sampler evaluates.
    """

    def __init__(
        self, sigmas: list[float], window: tuple[float, float], every: int, share: Callable[[float], float]
    ) -> None:
        self._sigmas, self._window, self._every = sigmas, window, every
        self.guided = guided_steps(sigmas, every, lambda sigma: PercentWindow.holds(sigma, window), share)

    def factor(self, sigma: float) -> float:
        """How many times its own share the guidance of an evaluation has; 0 where it has none."""
        if not PercentWindow.holds(sigma, self._window):
            return 0.0
        return 1.0 if self._every == 1 else self.guided.get(step_taken(sigma, self._sigmas), 0.0)
