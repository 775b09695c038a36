"""ComfyUI's own classes with random weights: diffusion networks of any size, and what goes with them."""

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.ldm.pixart.pixartms import PixArtMS
from comfy.supported_models_base import ClipTarget

from .small_networks import build, randomise
from .small_networks.network import WIDTH
from .small_networks.unet_mmdit_flux import UNET

# Stable Diffusion's, at full size: ComfyUI recognises no smaller one.
SD_VAE = {
    "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
    "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip


def without_attention() -> comfy.model_patcher.ModelPatcher:
    """A MODEL of Stable Diffusion 1.5's class whose every attention is taken out."""
    return build("SD15", transformer_depth=[0, 0, 0], transformer_depth_output=[0] * 6, transformer_depth_middle=-1)


def autoencoder_kl() -> comfy.sd.VAE:
    """A VAE object of Stable Diffusion's class whose random weights keep the size of what passes through."""
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode(False):
        weights = AutoencoderKL(ddconfig=SD_VAE, embed_dim=4).state_dict()
        for name, weight in weights.items():
            if weight.ndim > 1:
                weight.copy_(torch.randn(weight.shape, generator=generator) * weight[0].numel() ** -0.5)
            else:
                weight.fill_(float("norm" in name and name.endswith("weight")))
        return comfy.sd.VAE(sd=weights)


def controlnet() -> comfy.controlnet.ControlNet:
    """A CONTROL_NET for `build("SD15")`."""
    sizes = {key: value for key, value in UNET.items() if key not in ("out_channels", "use_temporal_resblock")}
    with torch.inference_mode(False):
        network = comfy.cldm.cldm.ControlNet(**sizes, hint_channels=3, operations=comfy.ops.disable_weight_init).eval()
        randomise(network.requires_grad_(False))
    return comfy.controlnet.ControlNet(network, load_device=comfy.model_management.get_torch_device())


def unreachable_clip() -> comfy.sd.CLIP:
    """A CLIP object without a text encoder: HiDream-O1's makes tokens alone, which the diffusion network reads."""
    from comfy.text_encoders import hidream_o1

    return comfy.sd.CLIP(ClipTarget(hidream_o1.HiDreamO1Tokenizer, hidream_o1.HiDreamO1TE))


def conditions(tokens: int = 8) -> tuple[list, list]:
    """A positive and a negative CONDITIONING."""
    generator = torch.Generator().manual_seed(1)
    pooled = torch.zeros(1, 32)
    return tuple([[torch.randn(1, tokens, WIDTH, generator=generator), {"pooled_output": pooled}]] for _ in range(2))


def latent(model, size: int, batch: int = 1) -> torch.Tensor:
    """[batch, C, size, size] of the model's latent; for PixArt, whose positions need more, at least 34."""
    size = max(size, 34) if isinstance(model.model.diffusion_model, PixArtMS) else size
    channels = model.model.latent_format.latent_channels
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(2))
