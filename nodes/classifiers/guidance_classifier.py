"""The GUIDANCE_CLASSIFIER of a graph: any image classifier behind one interface, moved and freed by ComfyUI."""

import copy
from dataclasses import dataclass, field
from typing import Any

import comfy.model_management
import comfy.model_patcher
import torch
from comfy_api.latest import io

from .adm import NoiseAwareClassifier
from .normal_weights import NormalWeights

ClassifierSocket = io.Custom("GUIDANCE_CLASSIFIER")


@dataclass(frozen=True)
class GuidanceClassifier:
    """patcher: holds a module whose forward takes images [B, 3, H, W] in 0..1 of any size, on its own device, and
    returns logits [B, N], differentiably; or a NoiseAwareClassifier. Its save(path, labels, notes) writes what the
    loader reads. labels: the N class names. notes: how it was calibrated, for the file's metadata."""

    name: str
    patcher: comfy.model_patcher.ModelPatcher
    labels: tuple[str, ...]
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def noise_aware(self) -> bool:
        """Whether the module reads what is sampled, noise and all, rather than a clean picture."""
        return isinstance(self.patcher.model, NoiseAwareClassifier)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Logits, without gradients; inputs are on the patcher's load_device."""
        comfy.model_management.load_models_gpu([self.patcher])
        with torch.no_grad():
            return NormalWeights()(self.patcher.model, *inputs)  # what ComfyUI left off the device, too

    @torch.inference_mode(False)
    def trainable_copy(self) -> torch.nn.Module:
        """The module with weights of its own, in float32, which want gradients."""
        module = copy.deepcopy(self.patcher.model)
        for name in vars(module).keys() & _noted_by_patchers():
            delattr(module, name)
        return module.float().requires_grad_(True)


def _noted_by_patchers() -> set[str]:
    """What a ModelPatcher writes onto the module that it holds."""
    cpu = torch.device("cpu")
    return (
        vars(comfy.model_patcher.ModelPatcher(torch.nn.Module(), cpu, cpu).model).keys()
        - vars(torch.nn.Module()).keys()
    )


def guidance_classifier(
    name: str, module: torch.nn.Module, labels: Any, notes: dict[str, Any] | None = None
) -> GuidanceClassifier:
    """Puts a classifier under ComfyUI's model management. Raises ValueError where it has not one logit a label."""
    module.eval().requires_grad_(False)
    example, *others = _example(module)
    with torch.enable_grad():
        logits = module(example.requires_grad_(), *others)
    if not logits.requires_grad:
        raise ValueError("its preprocessing has no gradient, so it cannot guide.")
    if logits.ndim != 2 or logits.shape[1] != len(labels):
        raise ValueError(f"the network has {logits.shape[-1]} classes, but its files name {len(labels)}.")
    device = comfy.model_management.get_torch_device()
    patcher = comfy.model_patcher.ModelPatcher(module, device, comfy.model_management.unet_offload_device())
    return GuidanceClassifier(name, patcher, tuple(labels), notes or {})


def _example(module: torch.nn.Module) -> tuple[torch.Tensor, ...]:
    """Inputs that a module takes."""
    if isinstance(module, NoiseAwareClassifier):
        return torch.zeros(1, module.channels, module.image_size, module.image_size), torch.tensor([0.5])
    return (torch.full((1, 3, 64, 64), 0.5),)
