"""The demo model as genuine ComfyUI objects: MODEL, CLIP and VAE that every node takes."""

import json
from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.utils
import torch
from comfy.supported_models_base import ClipTarget
from safetensors import SafetensorError, safe_open

from .architecture import WEIGHTS, DemoLatent, DemoModelConfig, DemoTextEncoder, DemoTokenizer, autoencoder


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


def _check(name: str, network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Raises RuntimeError where weights are not those of the network, by name and shape."""
    expected = {key: value.shape for key, value in network.state_dict().items()}
    wrong = {*expected.items()} ^ {(key, value.shape) for key, value in weights.items()}
    if wrong:
        raise RuntimeError(
            f"The demo model's {name}.safetensors does not fit this version of the pack: {len(wrong)} weights are "
            f"missing, unknown or of another shape, such as {min(wrong)[0]}. Install the node pack again."
        )


def load_diffusion_model(disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The diffusion model as ComfyUI's own loader would make it; the signature is that of a reload factory."""
    management = comfy.model_management
    weights, _ = read_weights("diffusion")
    config = DemoModelConfig(_latent_format())
    device = management.get_torch_device()
    dtype = management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(weights), supported_dtypes=config.supported_inference_dtypes
    )
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, config.supported_inference_dtypes))
    model = config.get_model(weights, "")
    _check("diffusion", model.diffusion_model, weights)
    patcher_class = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = patcher_class(model, load_device=device, offload_device=management.unet_offload_device())
    model.load_model_weights(weights, "", assign=patcher.is_dynamic())
    patcher.cached_patcher_init = (load_diffusion_model, ())
    return patcher


def _latent_format() -> DemoLatent:
    metadata = read_weights("vae")[1]
    if not {"rgb_factors", "rgb_bias"} <= metadata.keys():
        raise RuntimeError(
            "The demo model's vae.safetensors does not fit this version of the pack: its metadata is missing. "
            "Install the node pack again."
        )
    return DemoLatent(json.loads(metadata["rgb_factors"]), json.loads(metadata["rgb_bias"]))


def load_clip(disable_dynamic: bool = False) -> comfy.sd.CLIP:
    """The text encoder with its tokenizer."""
    weights, _ = read_weights("text")
    clip = comfy.sd.CLIP(
        ClipTarget(DemoTokenizer, DemoTextEncoder), parameters=comfy.utils.calculate_parameters(weights),
        disable_dynamic=disable_dynamic,
    )  # fmt: skip
    _check("text", clip.cond_stage_model.clip_l.transformer, weights)
    clip.load_sd(weights)
    clip.patcher.cached_patcher_init = (_load_clip_patcher, ())
    return clip


def _load_clip_patcher(disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    return load_clip(disable_dynamic).patcher


def load_vae() -> comfy.sd.VAE:
    """The autoencoder; ComfyUI recognises its class from the weights."""
    weights, metadata = read_weights("vae")
    _check("vae", autoencoder(), weights)
    return comfy.sd.VAE(sd=weights, metadata=metadata)
