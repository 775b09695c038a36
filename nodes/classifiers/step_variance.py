"""Σ of a DDPM sampler's steps: of the schedule alone, or as the network that takes the step has learned it."""

from dataclasses import dataclass
from typing import Any

from comfy.samplers import CFGGuider
from torch import Tensor

from ...guidance_core.ddpm_variance import learned_log_variance
from . import learned_variance


@dataclass(frozen=True)
class ScheduledVariance:
    """values: Σ of each step, [T]."""

    values: Tensor

    def asking(self, extra_args: dict[str, Any]) -> dict[str, Any]:
        """What a sampler hands to the guider in a step."""
        return extra_args

    def of_step(self, i: int, x: Tensor) -> Tensor:
        """Σ after the evaluation of x in step i, as a number or for each value of x."""
        return self.values[i]


class LearnedVariance:
    """The same of a network that tells the variance, for each value; with CFG, the positive condition's.

    Rows are told apart by the uuids of conditions: copies that other nodes add have the same number, and may come first.
    """

    def __init__(self, guider: CFGGuider, bounds: tuple[Tensor, Tensor], like: Tensor) -> None:
        """guider: ComfyUI's, while it samples. bounds: of Σ in its steps, [T] each. like: of x's device and number format."""
        self._positive = {entry["uuid"] for entry in guider.conds.get("positive") or ()}
        self._log_small, self._log_large = (bound.log().to(like) for bound in bounds)
        self._told: dict[str, Any] = {}

    def asking(self, extra_args: dict[str, Any]) -> dict[str, Any]:
        self._told.clear()
        options = extra_args.get("model_options", {})
        asked = {**options.get("transformer_options", {}), learned_variance.KEY: self}
        return {**extra_args, "model_options": {**options, "transformer_options": asked}}

    def take(self, values: Tensor, transformer_options: dict[str, Any]) -> None:
        """Called by the network, with v [chunks · B, C, H, W] of an evaluation."""
        uuids = transformer_options["uuids"]
        for uuid, rows in zip(uuids, values.chunk(len(uuids))):
            if uuid in self._positive:
                self._told.setdefault(uuid, rows)  # a later one is of a node that asks again, in a way of its own

    def of_step(self, i: int, x: Tensor) -> Tensor:
        """Raises ValueError where the network told no variance, or none of the whole picture."""
        if not self._told:
            raise ValueError(
                "variance = 'learned': the model told no variance. Choose 'small' or 'large', which every model has, or "
                "take out the node that left out the evaluation of its positive condition."
            )
        v, *others = self._told.values()
        if others or v.shape != x.shape:
            raise ValueError(
                "variance = 'learned' needs a single positive condition over the whole picture. Choose 'small' or "
                "'large' for several conditions or areas."
            )
        return learned_log_variance(v.to(x), self._log_small[i], self._log_large[i]).exp()
