"""A guider of ComfyUI's with three conditions: away from a weak branch, and from a negative prompt, each with a strength."""

import math
from typing import Any

import comfy.samplers
import node_helpers
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..common.steps_to_draw import NO_STEP, has_a_step
from ..feedback import Feedback

NAMES = ("positive", "weak", "negative")


class EntropyGuider(comfy.samplers.CFGGuider):
    """D = D_weak + w (D_pos − D_weak) + (w_neg − 1)(D_pos − D_neg), with w = scale and w_neg = negative_scale.

    What other nodes do to CFG (APG, RescaleCFG and kin) they do to the part of the weak branch.
    """

    def __init__(self, model_patcher: ModelPatcher, feedback: Feedback) -> None:
        """feedback: of the node that made it."""
        super().__init__(model_patcher)
        self.feedback = feedback

    def set_conds(self, positive: Any, weak: Any, negative: Any = None) -> None:
        conditions = {"positive": positive, "weak": weak, "negative": negative}
        for name in ("weak", "negative"):
            if conditions[name] is not None:
                conditions[name] = node_helpers.conditioning_set_values(conditions[name], {"prompt_type": "negative"})
        self.inner_set_conds({name: condition for name, condition in conditions.items() if condition is not None})

    def set_scales(self, scale: float, negative_scale: float) -> None:
        self.set_cfg(scale)
        self.negative_scale = negative_scale

    def outer_sample(self, *args: Any, **kwargs: Any) -> Any:
        """As ComfyUI's; says what was done."""
        result = super().outer_sample(*args, **kwargs)
        names = [name for name, condition in zip(NAMES, self._conditions(self.model_options)) if condition is not None]
        if not has_a_step(*args, **kwargs):
            self.feedback.say_without_effect(NO_STEP)
        elif names == ["positive"]:
            self.feedback.warn_without_effect("The ERG Guider", "scale is 1. Set it above 1.")
        else:
            self.feedback.say(f"{len(names)} predictions a step: {', '.join(names)}")
        return result

    def _conditions(self, model_options: dict[str, Any]) -> list[Any]:
        """Positive, weak and negative, None for one whose strength leaves it out."""
        positive, weak, negative = (self.conds.get(name) for name in NAMES)
        if math.isclose(self.cfg, 1) and not model_options.get("disable_cfg1_optimization", False):
            weak = None  # spares its evaluation, as ComfyUI does
        return [positive, weak, None if math.isclose(self.negative_scale, 1) else negative]

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: dict[str, Any] = {}, seed: int | None = None
    ) -> Tensor:
        """The guided x0 prediction, [B, C, ...] as x."""
        positive, weak, negative = self._conditions(model_options)
        conditions = [positive, weak] if negative is None else [positive, weak, negative]
        predictions = self._predict(conditions, x, timestep, model_options)
        guided = self._away_from_weak(conditions[:2], predictions[:2], x, timestep, model_options)
        if negative is None:
            return guided
        return guided + (self.negative_scale - 1) * (predictions[0] - predictions[2])

    def _predict(self, conditions: list[Any], x: Tensor, timestep: Tensor, model_options: dict[str, Any]) -> list[Any]:
        """A prediction for each condition: in one batch, unless another node evaluates positive and weak in its own way."""
        own_way = model_options.get("sampler_calc_cond_batch_function")
        if own_way is None:
            return comfy.samplers.calc_cond_batch(self.inner_model, conditions, x, timestep, model_options)
        asked = {"conds": conditions[:2], "input": x, "sigma": timestep, "model": self.inner_model}
        pair = [*own_way({**asked, "model_options": model_options})]
        if len(conditions) == 2:
            return pair
        others = [None, None, *conditions[2:]]
        apart = comfy.samplers.calc_cond_batch(self.inner_model, others, x, timestep, model_options)
        return [*pair, *apart[2:]]

    def _away_from_weak(
        self,
        conditions: list[Any],
        predictions: list[Tensor],
        x: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any],
    ) -> Tensor:
        """As ComfyUI's sampling_function goes on with its two predictions."""
        for function in model_options.get("sampler_pre_cfg_function", []):
            predictions = function(
                {
                    "conds": conditions, "conds_out": predictions, "cond_scale": self.cfg, "timestep": timestep, "input": x,
                    "sigma": timestep, "model": self.inner_model, "model_options": model_options,
                }
            )  # fmt: skip
        return comfy.samplers.cfg_function(
            self.inner_model, predictions[0], predictions[1], self.cfg, x, timestep,
            model_options=model_options, cond=conditions[0], uncond=conditions[1],
        )  # fmt: skip
