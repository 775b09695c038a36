"""What both training scripts share: ComfyUI's modules in training mode, and endless batches of scenes."""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
SAMPLES = REPOSITORY / ".dev" / "training"  # checkpoints, sample grids and curves; only final weights are committed
SAMPLES.mkdir(parents=True, exist_ok=True)


def import_comfyui() -> None:
    """Puts ComfyUI on the path with the options that training needs: torch's attention and differentiable kernels."""
    sys.path.insert(0, str(REPOSITORY / ".dev" / "ComfyUI"))
    import comfy.cli_args
    import torch

    comfy.cli_args.args.cpu = not torch.cuda.is_available()
    comfy.cli_args.args.use_pytorch_cross_attention = True
    import comfy.model_management

    comfy.model_management.in_training = True


def initialise(network) -> None:
    """PyTorch's own initial weights for every layer: ComfyUI's layers skip it, as they expect a checkpoint."""
    from torch import nn

    for layer in network.modules():
        for base in (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.Embedding):
            if isinstance(layer, base):
                base.reset_parameters(layer)
