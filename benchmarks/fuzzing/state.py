"""Whether a run has left anything behind: the same seed draws the same latent, and shared modules have no hooks of anyone's."""

from dataclasses import dataclass

import torch
from comfy.ldm.modules import attention
from comfy.model_management import load_models_gpu

from nodes import common_ksampler  # ComfyUI's

SEED = 7
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True)
class Shared:
    """What all graphs share: outputs of their loaders. model, clip: what is drawn with. patchers: of all networks."""

    model: object
    clip: object
    patchers: tuple

    def _use(self) -> list:
        """Loads all networks as their loaders gave them, and reads a prompt."""
        load_models_gpu(self.patchers)
        with torch.inference_mode():
            return self.clip.encode_from_tokens_scheduled(self.clip.tokenize("a red circle"))

    def latent(self) -> torch.Tensor:
        """Of a sampling without any node of the pack but the loader, from the reading of its prompt on."""
        empty = {"samples": torch.zeros(1, 4, 8, 8)}
        prompt = self._use()
        with torch.inference_mode():
            (drawn,) = common_ksampler(self.model, SEED, 2, 2.0, "euler", "simple", prompt, prompt, empty)
        return drawn["samples"]

    def left_behind(self) -> dict:
        """Hooks, replaced methods, wrappers, patches and modes: equal before and after each graph.

        A clone's patches stay in a network until another clone is used: here those that the loaders gave.
        """
        self._use()
        nets = enumerate(patcher.model for patcher in self.patchers)
        modules = [(n, name, module) for n, net in nets for name, module in net.named_modules()]
        return {
            "hooks": {(n, name): _hooks(module) for n, name, module in modules if any(_hooks(module))},
            "replaced": {(n, name): _replaced(module) for n, name, module in modules if _replaced(module)},
            "patchers": [_added(patcher) for patcher in self.patchers],
            "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype()),
            "functions": (attention.optimized_attention, torch.nn.functional.relu, torch.nn.functional.linear),
        }


def _hooks(module: torch.nn.Module) -> list[int]:
    return [len(getattr(module, kind)) for kind in HOOKS]


def _replaced(module: torch.nn.Module) -> list[str]:
    """Methods that the module has of its own, other than its class's, which ComfyUI puts back by name."""
    own = {name: getattr(type(module), name) for name in vars(module) if callable(getattr(type(module), name, None))}
    return [name for name, method in own.items() if getattr(vars(module)[name], "__func__", None) is not method]


def _added(patcher) -> tuple:
    """What nodes add to a ModelPatcher."""
    options = {
        key: str(sorted(value)) if isinstance(value, dict) else str(value)
        for key, value in patcher.model_options.items()
    }
    wrappers = {kind: sorted(map(str, by_key)) for kind, by_key in patcher.wrappers.items() if by_key}
    return (
        options,
        wrappers,
        sorted(patcher.object_patches),
        sorted(map(str, patcher.patches)),
        len(patcher.hook_patches),
    )
