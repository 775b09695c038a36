"""One evaluation of a diffusion network, as ComfyUI asks for it through APPLY_MODEL, which a wrapper may repeat."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY

from .reach import options_in_reach

OVERRIDE = "optimized_attention_override"
NOT_PART_OF_THE_NETWORK = ("wrappers", "callbacks", "patches", "patches_replace", OVERRIDE)


@dataclass(frozen=True)
class NetworkCall:
    """inputs: x, t, c_concat and c_crossattn. options: the transformer options. The rest as ComfyUI names it."""

    executor: WrapperExecutor
    inputs: tuple
    control: dict | None
    options: dict
    conditions: dict

    @property
    def network(self) -> torch.nn.Module:
        network = self.executor.class_obj.diffusion_model
        return getattr(network, "_orig_mod", network)  # of a compiled one

    @property
    def is_compiled(self) -> bool:
        return COMPILE_KEY in self.options.get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {})

    def run(self, eagerly: bool = False, compiled: bool = False, **more_options):
        """The network's prediction, with further transformer options.

        eagerly: without its compiled code. compiled: with compiled code that reads these options.
        """
        if not more_options:
            return self.executor(*self.inputs, self.control, self.options, **self.conditions)
        options = {**self.options, **more_options}
        # The lists of a ControlNet are used up by an evaluation, and a second one needs them too.
        control = self.control and {name: list(outputs) for name, outputs in self.control.items()}
        with options_in_reach(options, compiled), self._without_compiled_code() if eagerly else nullcontext():
            return self.executor(*self.inputs, control, options, **self.conditions)

    def run_bare(self, more_options: dict, replacing: bool = False) -> None:
        """Runs the network without what other nodes add to it. replacing: but with the blocks that they replace.

        Some networks write into their inputs (SD3's context processor, causal Wan's caches), so it gets copies.
        """
        bare = {name: _copy(value) for name, value in self.options.items() if name not in NOT_PART_OF_THE_NETWORK}
        if replacing:
            bare["patches_replace"] = self.options["patches_replace"]
        conditions = {name: _copy(condition) for name, condition in self.conditions.items()}
        with options_in_reach(more_options), self._without_compiled_code():
            self.executor.original(*map(_copy, self.inputs), None, {**bare, **more_options}, **conditions)

    def _without_compiled_code(self):
        return torch.compiler.set_stance("force_eager") if self.is_compiled else nullcontext()


def _copy(value):
    if isinstance(value, list):
        return [_copy(part) for part in value]
    if isinstance(value, dict):
        return {name: _copy(part) for name, part in value.items()}
    return value.clone() if torch.is_tensor(value) else value
