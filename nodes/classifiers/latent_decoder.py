"""From a model's x0 prediction to images, differentiably: for classifiers, which look at images.

full: the VAE's decoder. half: the same on the latent at half its size, a quarter of the cost. taesd: the small
decoder of previews (models/vae_approx), a fraction of it. Pixel-space models need none.
"""

import logging
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import folder_paths
import torch
import torch.nn.functional as F
from comfy.latent_formats import LatentFormat, SDXL_Playground_2_5
from comfy.model_patcher import ModelPatcher
from comfy.taesd.taesd import TAESD

from ...guidance_core.named_choice import check_choice

MODES = ("auto", "full", "half", "taesd")
DECODER = "tae"  # how the names of small decoders of pictures begin
# Bytes that a TAESD's decoding takes for each pixel of the picture: four maps of 64 floats at once.
TAESD_MEMORY = 1_100


@dataclass(frozen=True)
class LatentDecoder:
    """mode: 'full', 'half', 'taesd' or 'pixels'. latent: the model's latent format.

    patcher: what ComfyUI has to load, None for pixels. decode: a module from latents to pictures. scale, shift:
    scale · picture + shift lies in 0..1. frames: whether the VAE takes latents with a time axis. memory: bytes that
    decoding one latent of a shape takes without gradients.
    """

    mode: str
    latent: LatentFormat
    patcher: ModelPatcher | None = None
    decode: torch.nn.Module | None = None
    dtype: torch.dtype = torch.float32
    scale: float = 0.5
    shift: float = 0.5
    frames: bool = False
    memory: Callable[[tuple[Any, ...]], float] = lambda shape: 0.0

    def images(self, call: Callable[..., Any], x0: torch.Tensor) -> torch.Tensor:
        """Images [B, 3, H, W] in about 0..1 of predictions [B, C, h, w] or [B, C, 1, h, w] of the model.

        call: runs a module on inputs, with gradients.
        """
        latent = x0 if self.mode == "taesd" else self.latent.process_out(x0)  # TAESD reads the model's own scale
        latent = latent[:, :, 0] if latent.ndim == 5 else latent
        if self.patcher is None:  # pixels
            return self.scale * latent + self.shift
        if self.mode == "half":
            latent = F.avg_pool2d(latent, 2)  # a resize by area does not know odd sides on Apple's GPUs
        latent = latent.to(self.patcher.load_device, self.dtype)
        pictures = call(self.decode, latent[:, :, None] if self.frames else latent)
        pictures = pictures[:, :, 0] if self.frames else pictures
        return self.scale * pictures[:, :3].float() + self.shift  # some decoders give a fourth channel, of transparency

    def size_of(self, pictures: torch.Tensor) -> tuple[int, int]:
        """Height and width of what it makes of the latents of pictures [B, 3, H, W]."""
        ratio, part = self.latent.spacial_downscale_ratio, 2 if self.mode == "half" else 1
        height, width = (side // ratio // part * ratio for side in pictures.shape[-2:])
        return height, width

    def memory_of(self, x0: torch.Tensor) -> float:
        """Bytes that decoding one of the predictions takes without gradients."""
        height, width = (side // 2 if self.mode == "half" else side for side in x0.shape[-2:])
        return self.memory((1, x0.shape[1], *((1,) if self.frames else ()), height, width))


class _Decode(torch.nn.Module):
    """A VAE's decoding as a module's forward. unread: how the names of weights begin that alone encoding reads, in all of
    ComfyUI's VAEs that have them."""

    unread = ("vae.encoder.", "vae.quant_conv.", "vae.taesd_encoder.")
    vae: Any  # whose `decode` is no forward

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        return self.vae.decode(latent)


def check_mode(mode: str) -> None:
    """Raises ValueError for a word that is none of MODES."""
    check_choice("decode", mode, MODES)


def latent_decoder(model: ModelPatcher, vae: Any, mode: str) -> LatentDecoder:
    """The decoder for a model's predictions. Raises ValueError where `vae` or `decode` do not fit the model."""
    check_mode(mode)
    latent = _normal(model.get_model_object("latent_format"))
    pixels = latent.latent_channels == 3 and (vae is None or latent.spacial_downscale_ratio == 1)
    if pixels and (vae is None or vae.latent_channels == 3):
        return LatentDecoder("pixels", latent)
    if vae is None:
        raise ValueError(
            f"vae: the model works in a latent space of {latent.latent_channels} channels. Wire its VAE, so that the "
            "classifier can look at pictures."
        )
    vae.throw_exception_if_invalid()
    if vae.latent_channels != latent.latent_channels:
        raise ValueError(
            f"vae: it decodes {vae.latent_channels} channels, but the model's latents have {latent.latent_channels}. "
            f"Wire {'none: the model draws pixels' if pixels else 'the VAE that belongs to the model'}."
        )
    small = _preview_decoder(latent)
    if mode == "auto":
        mode = "taesd" if small else "full" if isinstance(vae.first_stage_model, TAESD) else "half"
        if mode == "half" and latent.taesd_decoder_name:
            logging.info(
                "Classifier guidance decodes at half the size, a rough shortcut: put %s into models/vae_approx for "
                "better guidance in less time.", latent.taesd_decoder_name,
            )  # fmt: skip
    if mode != "taesd":
        scale, shift = _range(vae)
        return LatentDecoder(
            mode, latent, vae.patcher, _Decode(vae.first_stage_model), vae.vae_dtype, scale, shift,
            frames=vae.latent_dim == 3, memory=lambda shape: vae.memory_used_decode(shape, vae.vae_dtype),
        )  # fmt: skip
    if not small:
        raise ValueError(
            f"decode = 'taesd': there is no {latent.taesd_decoder_name or 'such decoder for this model'} in ComfyUI's "
            "models/vae_approx. Choose 'half' or 'full'."
        )
    return _taesd(small, latent)


@torch.inference_mode(False)
def _normal(latent: LatentFormat) -> LatentFormat:
    """A latent format whose tensors autograd takes: those made while a graph runs are inference tensors."""
    latent = copy(latent)
    for name, value in vars(latent).items():
        if torch.is_tensor(value):
            setattr(latent, name, value.clone())
    return latent


def _range(vae: Any) -> tuple[float, float]:
    """Scale and shift of a VAE's last step to 0..1, which also clamps and so has no gradient at black and white."""
    low, high = vae.process_output(torch.tensor([-0.5, 0.5])).tolist()
    return high - low, (high + low) / 2


def small_decoders(decode: str | None = "auto") -> list[str]:
    """Those in ComfyUI's models/vae_approx, where `decode`, which is None for a linked one, may take one."""
    if decode in ("full", "half"):
        return []
    return [file for file in folder_paths.get_filename_list("vae_approx") if file.startswith(DECODER)]


def _preview_decoder(latent: LatentFormat) -> str | None:
    """The file of the small decoder for a latent format; those for video are of another kind."""
    if latent.taesd_decoder_name is None or latent.latent_dimensions != 2:
        return None
    if isinstance(latent, SDXL_Playground_2_5):  # scaled otherwise than the latents that its small decoder reads
        return None
    fitting = next((file for file in small_decoders() if file.startswith(latent.taesd_decoder_name)), None)
    return fitting and folder_paths.get_full_path_or_raise("vae_approx", fitting)


@torch.inference_mode(False)
def _taesd(path: str, latent: LatentFormat) -> LatentDecoder:
    network = TAESD(None, path, latent_channels=latent.latent_channels).eval().requires_grad_(False)
    management = comfy.model_management
    patcher = ModelPatcher(network, management.get_torch_device(), management.vae_offload_device())
    pixels = latent.spacial_downscale_ratio**2
    memory = lambda shape: TAESD_MEMORY * pixels * shape[-2] * shape[-1]  # noqa: E731
    return LatentDecoder("taesd", latent, patcher, _Decode(network), memory=memory)
