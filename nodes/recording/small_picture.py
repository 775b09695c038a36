"""Small pictures of latents without a VAE, as rough as ComfyUI's own previews: each place of a latent becomes one colour."""

import torch
import torch.nn.functional as F
from comfy.latent_formats import LatentFormat

SIDE = 128  # pixels at most


def small_picture(latent: torch.Tensor, latent_format: LatentFormat) -> torch.Tensor | None:
    """A picture [H, W, 3] of bytes, on the CPU, of the first latent of a batch [B, C, ...] in the model's own space; of a video
    its first frame. None for latents that are no pictures, or whose colours ComfyUI does not know."""
    latent = latent[:1].float().cpu()
    if latent_format.latent_rgb_factors_reshape is not None:
        latent = latent_format.latent_rgb_factors_reshape(latent)
    latent = latent[:, :, 0] if latent.ndim == 5 else latent
    factors = _factors(latent_format)
    if latent.ndim != 4 or factors is None or len(factors) != latent.shape[1]:
        return None
    bias = latent_format.latent_rgb_factors_bias
    picture = torch.einsum("chw,cr->rhw", latent[0], factors) + torch.tensor(bias or [0.0] * 3)[:, None, None]
    picture = ((picture + 1) / 2).clamp(0, 1)
    share = SIDE / max(picture.shape[1:])
    if share < 1:
        picture = F.interpolate(picture[None], scale_factor=share, mode="area")[0]
    return (picture.movedim(0, -1) * 255).round().byte()


def _factors(latent_format: LatentFormat) -> torch.Tensor | None:
    """What each channel adds to red, green and blue."""
    if latent_format.latent_rgb_factors is not None:
        return torch.tensor(latent_format.latent_rgb_factors)
    return torch.eye(3) if latent_format.latent_channels == 3 else None
