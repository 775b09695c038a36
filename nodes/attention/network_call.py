"""One evaluation of a diffusion network, as ComfyUI asks for it through APPLY_MODEL, which a wrapper may repeat."""

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY, TORCH_COMPILE_KWARGS

from ..feedback import OUR_PACKAGE
from .reach import options_in_reach

OVERRIDE = "optimized_attention_override"
NOT_PART_OF_THE_NETWORK = ("wrappers", "callbacks", "patches", "patches_replace", OVERRIDE)
# What networks keep of the prompt's attention for a whole sampling would be kept with ERG in it, or without. Networks
# that know none of these options ignore them.
WITHOUT_CACHES = {"qwen_image21_cache": {"device": "off"}, "animate2_cache": None}


@dataclass(frozen=True)
class NetworkCall:
    """inputs: x, t, c_concat and c_crossattn. options: the transformer options. The rest as ComfyUI names it."""

    executor: WrapperExecutor
    inputs: tuple[Any, ...]
    control: dict[str, Any] | None
    options: dict[str, Any]
    conditions: dict[str, Any]

    @property
    def network(self) -> torch.nn.Module:
        network = self.executor.class_obj.diffusion_model
        return getattr(network, "_orig_mod", network)  # of a compiled one

    @property
    def is_compiled(self) -> bool:
        return COMPILE_KEY in self.options.get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {})

    @property
    def compiled_parts(self) -> list[str]:
        """The parts of the model that ComfyUI's wrappers of torch.compile put compiled ones in the place of."""
        wrappers = self.options["wrappers"][WrappersMP.APPLY_MODEL][COMPILE_KEY]
        variables = [inspect.getclosurevars(wrapper).nonlocals for wrapper in wrappers]
        return [part for of_wrapper in variables for part in of_wrapper.get("compiled_module_dict", ())]

    @property
    def patched(self) -> frozenset[str]:
        """The names of what this clone of the model has of its own in the place of the network's, or around it."""
        around = self.options.get("wrappers", {}).get(WrappersMP.DIFFUSION_MODEL, {})
        return frozenset(self.executor.class_obj.current_patcher.object_patches) | {f"around: {key}" for key in around}

    @property
    def compile_options(self) -> dict[str, Any]:
        """How it was compiled, as torch.compile's arguments."""
        return self.executor.class_obj.current_patcher.model_options[TORCH_COMPILE_KWARGS]

    @property
    def shapes(self) -> tuple[Any, ...] | None:
        """Of all that the network gets, by which forward passes of different attention calls are told apart."""
        return _shapes((self.inputs, self.conditions))

    @property
    def shapes_of_control(self) -> tuple[Any, ...] | None:
        return _shapes(self.control)

    def run(
        self, more_options: dict[str, Any] | None = None, *, eagerly: bool = False, compiled: bool = False
    ) -> torch.Tensor:
        """The network's prediction, with further transformer options.

        eagerly: without its compiled code. compiled: with compiled code that reads these options.
        """
        if not more_options:
            return self.executor(*self.inputs, self.control, self.options, **self.conditions)
        options = {**self.options, **WITHOUT_CACHES, **more_options}
        # The lists of a ControlNet are used up by an evaluation, and a second one needs them too.
        control = self.control and {name: list(outputs) for name, outputs in self.control.items()}
        with options_in_reach(options, compiled), self._without_compiled_code() if eagerly else nullcontext():
            return self.executor(*self.inputs, control, options, **self.conditions)

    def run_without_nodes(self, more_options: dict[str, Any], replacing: bool = False) -> None:
        """Runs the network without other nodes' wrappers and patches. replacing: but with the blocks that they replace.

        Their object patches stay, which are part of this clone's network. Some networks write into their inputs (SD3's
        context processor, causal Wan's caches), so it gets copies.
        """
        bare = {name: copied(value) for name, value in self.options.items() if name not in NOT_PART_OF_THE_NETWORK}
        if replacing:
            bare["patches_replace"] = self.options["patches_replace"]
        conditions = {name: copied(condition) for name, condition in self.conditions.items()}
        options = {**bare, **WITHOUT_CACHES, **more_options}
        with options_in_reach(options), self._without_compiled_code():
            self.executor.original(*map(copied, self.inputs), None, options, **conditions)

    def other_nodes(self) -> str:
        """The packs and modules of whatever else changes this evaluation, for a message that is to name it."""
        return ", ".join(sorted({name for name in map(_origin, self._changes()) if name})) or "another node"

    def _changes(self, within: bool = False) -> Iterator[Any]:
        """within: those alone that have a part in an evaluation, none of a sampling's other wrappers and objects."""
        options, patcher = self.options, getattr(self.executor.class_obj, "current_patcher", None)
        for patches in options.get("patches", {}).values():
            yield from patches
        for replacements in options.get("patches_replace", {}).values():
            yield from replacements.values()
        for kind, wrappers in options.get("wrappers", {}).items():
            if not within or kind in (WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL):
                yield from (wrapper for of_key in wrappers.values() for wrapper in of_key)
        yield options.get(OVERRIDE)
        if patcher is not None:
            yield patcher.model_options.get("model_function_wrapper")
            patches = patcher.object_patches.items()
            yield from (patch for name, patch in patches if not within or name.startswith("diffusion_model."))

    @property
    def is_changed_by_others(self) -> bool:
        """Whether other nodes change what the network computes of its inputs, so that rows may be told apart in there."""
        return any(_origin(change) is not None for change in self._changes(within=True))

    def _without_compiled_code(self) -> AbstractContextManager[Any]:
        if not self.is_compiled:
            return nullcontext()
        if not hasattr(torch.compiler, "set_stance"):
            raise RuntimeError(
                "A compiled model is run without its compiled code with PyTorch 2.6 or newer, and this is "
                f"{torch.__version__}. Update PyTorch, or take out the node that compiles the model."
            )
        return torch.compiler.set_stance("force_eager")


def _origin(change: object) -> str | None:
    """The custom node pack, or else the module, that some function or object is of; None for ComfyUI's and our own."""
    function = getattr(change, "__func__", change)
    module = getattr(function, "__module__", None) or type(function).__module__
    if change is None or module.startswith((f"{OUR_PACKAGE}.", "comfy.", "comfy_api.", "torch.", "builtins")):
        return None
    pack = re.search(r"custom_nodes[./\\]([^./\\]+)", module)
    return pack[1] if pack else module.removeprefix("comfy_extras.")


def with_innermost(executor: WrapperExecutor, wrapper: Callable[..., Any]) -> WrapperExecutor:
    """The rest of a wrapped call of ComfyUI's, with one wrapper more, next to what is wrapped."""
    return WrapperExecutor(executor.original, executor.class_obj, [*executor.wrappers, wrapper], executor.idx)


def with_tensors(value: Any, make: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A copy of nested lists, tuples and dictionaries with another tensor in the place of each."""
    if isinstance(value, list) or type(value) is tuple:
        parts = [with_tensors(part, make) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    if isinstance(value, dict):
        return {name: with_tensors(part, make) for name, part in value.items()}
    return make(value) if torch.is_tensor(value) else value


def copied(value: Any) -> Any:
    """Lists, tuples, dictionaries and tensors of their own."""
    return with_tensors(value, torch.clone)


def _shapes(value: Any) -> tuple[Any, ...] | None:
    if torch.is_tensor(value):
        return tuple(value.shape)
    if isinstance(value, dict):
        return tuple((name, _shapes(part)) for name, part in value.items())
    return tuple(map(_shapes, value)) if isinstance(value, (list, tuple)) else None
