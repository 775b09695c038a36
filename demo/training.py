"""What both training scripts share: ComfyUI ready for training, and where checkpoints and samples go."""

import sys
from pathlib import Path

import torch

from tools.environment import COMFYUI, DEV

SAMPLES = DEV / "training"  # checkpoints, sample grids and curves; only final weights are committed
SAMPLES.mkdir(parents=True, exist_ok=True)


def save_checkpoint(state: dict, path: Path) -> None:
    """torch.save in one piece: an interrupt while writing must not cost the last checkpoint."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def import_comfyui() -> None:
    """Puts ComfyUI on the path with the options that training needs: torch's attention and differentiable kernels."""
    sys.path.insert(0, str(COMFYUI))
    import comfy.cli_args

    comfy.cli_args.args.cpu = not torch.cuda.is_available()
    comfy.cli_args.args.use_pytorch_cross_attention = True
    import comfy.model_management

    comfy.model_management.in_training = True


def device():
    """The device that ComfyUI would run on: a GPU where there is one."""
    from comfy.model_management import get_torch_device

    return get_torch_device()


def half_precision(device: torch.device) -> torch.autocast:
    """Autocast to bfloat16; to nothing on a CPU that would only emulate it, many times slower than float32."""
    emulated = device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX", "AVX2")
    return torch.autocast(device.type, torch.bfloat16, enabled=not emulated)
