"""From a model's x0 prediction to images, differentiably: for classifiers, which look at images.

full: the VAE's decoder. half: the same on the latent at half its size, a quarter of the cost. taesd: the small
decoder of previews (models/vae_approx), a fraction of it. Pixel-space models need none.
"""

from collections.abc import Callable
from dataclasses import dataclass

import comfy.model_management
import folder_paths
import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from comfy.taesd.taesd import TAESD

MODES = ("auto", "full", "half", "taesd")


@dataclass(frozen=True)
class LatentDecoder:
    """mode: 'full', 'half', 'taesd' or 'pixels'. patcher: what ComfyUI has to load, None for pixels.

    decode: a module from latents to pictures. scale, shift: scale · picture + shift lies in 0..1.
    """

    mode: str
    patcher: ModelPatcher | None = None
    decode: torch.nn.Module | None = None
    dtype: torch.dtype = torch.float32
    scale: float = 0.5
    shift: float = 0.5
    frames: bool = False  # whether the VAE takes latents with a time axis

    def images(self, call: Callable, x0: torch.Tensor, model) -> torch.Tensor:
        """Images [B, 3, H, W] in about 0..1 of predictions [B, C, h, w] or [B, C, 1, h, w] of a model.

        call: runs a module on inputs, with gradients.
        """
        if x0.ndim == 5:
            x0 = x0[:, :, 0]
        latent = x0 if self.mode == "taesd" else model.process_latent_out(x0)  # TAESD reads the model's own scale
        if self.mode == "pixels":
            return self.scale * latent + self.shift
        if self.mode == "half":
            latent = F.interpolate(latent, scale_factor=0.5, mode="area")
        pictures = call(self.decode, (latent[:, :, None] if self.frames else latent).to(self.dtype))
        return self.scale * (pictures[:, :, 0] if self.frames else pictures).float() + self.shift


class _Decode(torch.nn.Module):
    """A VAE's decoding as a module's forward."""

    def __init__(self, vae: torch.nn.Module):
        super().__init__()
        self.vae = vae

    def forward(self, latent):
        return self.vae.decode(latent)


def latent_decoder(model: ModelPatcher, vae, mode: str) -> LatentDecoder:
    """The decoder for a model's predictions. Raises ValueError where `vae` or `decode` do not fit the model."""
    latent = model.get_model_object("latent_format")
    if vae is None:
        if latent.latent_channels == 3:
            return LatentDecoder("pixels")
        raise ValueError(
            f"vae: the model works in a latent space of {latent.latent_channels} channels. Wire its VAE, so that the "
            "classifier can look at pictures."
        )
    vae.throw_exception_if_invalid()
    if vae.latent_channels != latent.latent_channels:
        raise ValueError(
            f"vae: it decodes {vae.latent_channels} channels, but the model's latents have {latent.latent_channels}. "
            "Wire the VAE that belongs to the model."
        )
    small = _preview_decoder(latent)
    if mode == "auto":
        mode = "taesd" if small else "full" if isinstance(vae.first_stage_model, TAESD) else "half"
    if mode != "taesd":
        scale, shift = _range(vae)
        return LatentDecoder(
            mode, vae.patcher, _Decode(vae.first_stage_model), vae.vae_dtype, scale, shift, vae.latent_dim == 3
        )
    if not small:
        raise ValueError(
            f"decode = 'taesd': there is no {latent.taesd_decoder_name or 'such decoder for this model'} in ComfyUI's "
            "models/vae_approx. Choose 'half' or 'full'."
        )
    return _taesd(small, latent.latent_channels)


def _range(vae) -> tuple[float, float]:
    """Scale and shift of a VAE's last step to 0..1, which also clamps and so has no gradient at black and white."""
    low, high = vae.process_output(torch.tensor([-0.5, 0.5])).tolist()
    return high - low, (high + low) / 2


def _preview_decoder(latent) -> str | None:
    """The file of the small decoder for a latent format; those for video are of another kind."""
    if latent.taesd_decoder_name is None or latent.latent_dimensions != 2:
        return None
    files = folder_paths.get_filename_list("vae_approx")
    fitting = next((file for file in files if file.startswith(latent.taesd_decoder_name)), None)
    return fitting and folder_paths.get_full_path_or_raise("vae_approx", fitting)


@torch.inference_mode(False)
def _taesd(path: str, channels: int) -> LatentDecoder:
    network = TAESD(None, path, latent_channels=channels).eval().requires_grad_(False)
    management = comfy.model_management
    patcher = ModelPatcher(network, management.get_torch_device(), management.vae_offload_device())
    return LatentDecoder("taesd", patcher, _Decode(network))
