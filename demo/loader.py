"""The demo model as genuine ComfyUI objects: MODEL, CLIP and VAE that every node takes."""

from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.utils
import torch
from comfy.supported_models_base import ClipTarget
from safetensors import SafetensorError, safe_open

from .architecture import WEIGHTS, DemoModelConfig, DemoTextEncoder, DemoTokenizer, autoencoder, latent_format


def read_weights(name: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Weights and metadata of a bundled file; an error that says how to mend the pack where that cannot be read."""
    path: Path = WEIGHTS / f"{name}.safetensors"
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise RuntimeError(
            f"The demo model's file {path} is missing or damaged ({error}). Install the node pack again, or restore "
            "the file with 'git checkout demo/weights' in the pack's folder."
        ) from error


def _check_keys(name: str, missing: list[str], unexpected: list[str]) -> None:
    if missing or unexpected:
        raise RuntimeError(
            f"The demo model's {name}.safetensors does not fit this version of the pack: {len(missing)} weights are "
            f"missing, {len(unexpected)} are unknown. Install the node pack again."
        )


def load_diffusion_model(disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The diffusion model as ComfyUI's own loader would make it; the signature is that of a reload factory."""
    management = comfy.model_management
    weights, _ = read_weights("diffusion")
    config = DemoModelConfig(latent_format(read_weights("vae")[1]))
    device = management.get_torch_device()
    dtype = management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(weights), supported_dtypes=config.supported_inference_dtypes
    )
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, config.supported_inference_dtypes))
    model = config.get_model(weights, "")
    _check_keys("diffusion", *_difference(model.diffusion_model, weights))
    patcher_class = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = patcher_class(model, load_device=device, offload_device=management.unet_offload_device())
    model.load_model_weights(weights, "", assign=patcher.is_dynamic())
    patcher.cached_patcher_init = (load_diffusion_model, ())
    return patcher


def _difference(network: torch.nn.Module, weights: dict) -> tuple[list[str], list[str]]:
    expected = network.state_dict().keys()
    return sorted(expected - weights.keys()), sorted(weights.keys() - expected)


def load_clip(disable_dynamic: bool = False) -> comfy.sd.CLIP:
    """The text encoder with its tokenizer."""
    weights, _ = read_weights("text")
    clip = comfy.sd.CLIP(
        ClipTarget(DemoTokenizer, DemoTextEncoder), parameters=comfy.utils.calculate_parameters(weights),
        disable_dynamic=disable_dynamic,
    )  # fmt: skip
    _check_keys("text", *clip.load_sd(weights))
    clip.patcher.cached_patcher_init = (_load_clip_patcher, ())
    return clip


def _load_clip_patcher(disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    return load_clip(disable_dynamic).patcher


def load_vae() -> comfy.sd.VAE:
    """The autoencoder; ComfyUI recognises its class from the weights."""
    weights, metadata = read_weights("vae")
    _check_keys("vae", *_difference(autoencoder(), weights))
    return comfy.sd.VAE(sd=weights, metadata=metadata)
