"""A small network, with random weights, of every diffusion model that ComfyUI or this pack knows, and the conditions that
it takes."""

import comfy.model_management
import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher

from .audio_and_3d import AUDIO_AND_3D
from .image_transformers import IMAGE_TRANSFORMERS
from .network import SmallNetwork
from .own_loaders import OWN, own_config
from .unet_mmdit_flux import UNET_MMDIT_FLUX
from .video import VIDEO
from .wan import WAN

# By the name of the class in comfy.supported_models, only those that this ComfyUI has; and what this pack's loaders make.
NETWORKS: dict[str, SmallNetwork] = {
    name: small
    for name, small in {**UNET_MMDIT_FLUX, **IMAGE_TRANSFORMERS, **VIDEO, **WAN, **AUDIO_AND_3D}.items()
    if hasattr(comfy.supported_models, name.partition(":")[0])
} | OWN


def build(name: str, dtype=torch.float32, compute=None, operations=None, **sizes) -> ModelPatcher:
    """A MODEL of a class of comfy.supported_models, whose mode a colon parts from it, or of this pack's loaders.

    dtype: of its weights. compute: of its arithmetic where that is another one. operations: the classes of its layers, as
    custom loaders give them. sizes: other ones than the small network's.
    """
    small = NETWORKS[name]
    sizes = {**small.sizes, **sizes}
    if name in OWN:
        config = own_config(name, sizes)
    else:
        config = getattr(comfy.supported_models, name.partition(":")[0])(dict(sizes))
    # Some classes set sizes of their own, which fit their real ones.
    config.unet_config.update({size: sizes[size] for size in config.unet_extra_config if size in sizes})
    config.set_inference_dtype(dtype, compute)
    config.custom_operations = operations
    device = comfy.model_management.get_torch_device()
    with torch.inference_mode(False):
        weights = small.weights(torch.Generator().manual_seed(0))
        with small.building():
            model = config.get_model(weights, "").eval().requires_grad_(False)
        randomise(model.diffusion_model)
    patcher = ModelPatcher(model, device, torch.device("cpu"))
    small.prepare(patcher)
    return patcher


def randomise(network: torch.nn.Module) -> None:
    """Fills a network with random weights, the same each time."""
    generator = torch.Generator().manual_seed(0)
    for tensor in network.state_dict(keep_vars=True).values():
        if not tensor.is_floating_point():
            continue
        # Wide layers get small weights, so that activations keep their size.
        scale = tensor.shape[-1] ** -0.5 if tensor.ndim == 2 else 0.2
        tensor.data = (torch.randn(tensor.shape, generator=generator) * scale).to(tensor.dtype)
