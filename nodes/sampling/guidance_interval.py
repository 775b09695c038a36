"""Guidance in a window of the sampling alone: outside of it a step is one of the positive condition, as at cfg 1.

Applying Guidance in a Limited Interval, https://arxiv.org/abs/2404.07724.
"""

import logging
from dataclasses import dataclass, field
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy.samplers import CFGGuider, sampling_function
from torch import Tensor

from ...guidance_core.named_choice import check_choice
from ..common.percent_window import PercentWindow
from .condition_names import positive_name, weak_name

# What makes guidance of both predictions, such as core's APG; at cfg 1 these get zeros in the place of the negative one.
OF_BOTH = ("sampler_pre_cfg_function", "sampler_cfg_function")
ORDINARY, NO_GUIDANCE = OUTSIDE = ("ordinary", "no guidance")


def interval_of(window: PercentWindow, outside: str) -> "GuidanceInterval | None":
    """The interval that a node's inputs ask for, if any. Raises ValueError for a word that is not in OUTSIDE."""
    check_choice("outside", outside, OUTSIDE)
    return None if outside == ORDINARY or window.is_everything else GuidanceInterval(window)


@dataclass
class GuidanceInterval:
    """window: where guidance is as the guider has it."""

    window: PercentWindow
    _sigmas: tuple[float, float] | None = field(default=None, init=False, repr=False)  # of the window, in this sampling
    _said: bool = field(default=False, init=False, repr=False)
    _had_guidance: set[bool] = field(default_factory=set, init=False, repr=False)  # the steps of this sampling

    def add_to(self, model: ModelPatcher, key: str) -> None:
        """Adds the wrappers to a ModelPatcher."""
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, self.sample)
        model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, key, self.predict)

    def sample(self, executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Any:
        """A wrapper for ComfyUI's OUTER_SAMPLE: a sampling within another has a window of its own."""
        outer = self._sigmas, self._said, self._had_guidance
        self._sigmas, self._said, self._had_guidance = None, False, set()
        try:
            return executor(*args, **kwargs)
        finally:
            self._sigmas, self._said, self._had_guidance = outer

    @property
    def left_out_all_guidance(self) -> bool:
        """Whether no step of the sampling that is running had any."""
        return self._had_guidance == {False}

    def predict(
        self,
        executor: WrapperExecutor,
        x: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any] = {},
        seed: int | None = None,
    ) -> Tensor:
        """A wrapper for ComfyUI's PREDICT_NOISE."""
        guider = executor.class_obj
        positive, weak = positive_name(guider.conds), weak_name(guider.conds)
        inside = self._is_inside(timestep, guider.inner_model.model_sampling)
        self._had_guidance.add(inside or positive is None)
        if inside:
            return executor(x, timestep, model_options, seed)
        if positive is None:
            self._say(f"{type(guider).__name__} has no positive condition, so its guidance is ordinary there.")
            return executor(x, timestep, model_options, seed)
        if model_options.get("disable_cfg1_optimization") and weak is not None:
            self._say(
                "the sampler or another node needs the negative branch all the same, so a step outside of the window is not "
                "cheaper. It has no guidance, though."
            )

        def as_at_cfg_1(x: Tensor, timestep: Tensor, model_options: dict[str, Any], seed: int | None) -> Any:
            conditions = guider.conds.get(weak), guider.conds[positive]
            plain = {name: value for name, value in model_options.items() if name not in OF_BOTH}
            # DualModelGuider has a model of its own for the negative branch.
            if getattr(guider, "uncond_inner", None) is not None:
                return _at_cfg_1(guider, x, timestep, plain, seed)
            return sampling_function(guider.inner_model, x, timestep, *conditions, 1.0, plain, seed)

        # The wrappers of other nodes stay around it.
        rest = WrapperExecutor(as_at_cfg_1, guider, executor.wrappers, executor.idx)
        return rest(x, timestep, model_options, seed)

    def _is_inside(self, sigma: Tensor, model_sampling: Any) -> bool:
        if self._sigmas is None:
            self._sigmas = self.window.sigmas(model_sampling)
        return self.window.holds(sigma[0].item(), self._sigmas)

    def _say(self, message: str) -> None:
        """Once in a sampling."""
        if not self._said:
            self._said = True
            logging.info("Entropy Rectifying Guidance, outside = 'no guidance': %s", message)


def _at_cfg_1(guider: CFGGuider, *args: Any) -> Any:
    """A guider's own prediction, at cfg 1."""
    cfg, guider.cfg = guider.cfg, 1.0
    try:
        return guider.predict_noise(*args)
    finally:
        guider.cfg = cfg
