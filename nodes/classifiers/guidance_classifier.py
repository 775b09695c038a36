"""The GUIDANCE_CLASSIFIER of a graph: any image classifier behind one interface, moved and freed by ComfyUI."""

import copy
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import comfy.model_management
import comfy.model_patcher
import torch
from comfy_api.latest import io

from .adm import NoiseAwareClassifier
from .normal_weights import NormalWeights

EXAMPLES = 3  # pictures that a new classifier is tried with
ClassifierSocket = io.Custom("GUIDANCE_CLASSIFIER")


@dataclass(frozen=True)
class GuidanceClassifier:
    """patcher: holds a module whose forward takes images [B, 3, H, W] in 0..1 of any size, on its own device, and
    returns logits [B, N], differentiably; or a NoiseAwareClassifier. Its save(path, labels, notes) writes what the
    loader reads. labels: the N class names. notes: how it was calibrated, for the file's metadata. kept: bytes that autograd
    keeps of one picture, for its gradient."""

    name: str
    patcher: comfy.model_patcher.ModelPatcher
    labels: tuple[str, ...]
    notes: dict[str, Any] = field(default_factory=dict)
    kept: int = 0

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
    """Puts a classifier under ComfyUI's model management. Raises ValueError where it has not one logit a label, two or more,
    and warns where its gradient is zero."""
    module.eval().requires_grad_(False)
    for example, *others in _examples(module):
        logits, kept = _kept_for_a_gradient(module, example.requires_grad_(), *others)
        _check_logits(logits, len(labels))
        slope = _gradient(logits, example)
        if slope.any() and slope.isfinite().all():
            break
    else:
        logging.warning(
            "The classifier %r will not guide: its gradient is zero, or no number, for each of %d test pictures. Its weights or "
            "its preprocessing may not be those that it was trained with.",
            name, EXAMPLES,
        )  # fmt: skip
    offload = comfy.model_management.unet_offload_device()
    patcher = comfy.model_patcher.ModelPatcher(module, _device_for(module), offload)
    return GuidanceClassifier(name, patcher, tuple(labels), notes or {}, kept)


def _device_for(module: torch.nn.Module) -> torch.device:
    """ComfyUI's device; the CPU for classifiers of clean pictures in the place of Apple's GPUs, where PyTorch has no gradient
    of their antialiased resize, and older ones not the resize itself."""
    device = comfy.model_management.get_torch_device()
    resizes = not isinstance(module, NoiseAwareClassifier)
    return torch.device("cpu") if device.type == "mps" and resizes else device


def _examples(module: torch.nn.Module) -> Iterator[tuple[torch.Tensor, ...]]:
    """Inputs that a module takes: noise, the same for all."""
    noise = torch.Generator().manual_seed(0)
    for _ in range(EXAMPLES):
        if isinstance(module, NoiseAwareClassifier):
            shape = (1, module.channels, module.image_size, module.image_size)
            yield torch.randn(shape, generator=noise), torch.tensor([0.5])
        else:
            yield (torch.rand(1, 3, 64, 64, generator=noise),)


@torch.enable_grad()
def _kept_for_a_gradient(module: torch.nn.Module, *inputs: torch.Tensor) -> tuple[torch.Tensor, int]:
    """A module's logits, and the bytes that autograd keeps for their gradient beside the module's weights."""
    sizes: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor.detach()  # a result that held itself would stay for ever

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = module(*inputs)
    for weight in (*module.parameters(), *module.buffers()):
        sizes.pop(weight.untyped_storage().data_ptr(), None)
    return logits, sum(sizes.values())


def _check_logits(logits: torch.Tensor, labels: int) -> None:
    if not logits.requires_grad:
        raise ValueError("its preprocessing has no gradient, so it cannot guide.")
    if logits.ndim != 2 or logits.shape[1] != labels:
        raise ValueError(f"the network has {logits.shape[-1]} classes, but its files name {labels}.")
    if labels < 2:
        raise ValueError(f"it has {labels} class: guidance needs two or more to tell apart.")


def _gradient(logits: torch.Tensor, example: torch.Tensor) -> torch.Tensor:
    """Of the logits, each weighted by a number of its own, with respect to the example that they are of."""
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).to(logits)
    return torch.autograd.grad((logits * weights).sum(), example)[0]
