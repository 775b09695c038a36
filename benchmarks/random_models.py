"""Networks of ComfyUI's own classes with random weights, of any size."""

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.supported_models
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.supported_models_base import ClipTarget

CONTEXT = 32  # width of the text condition

UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1, 1],
    "channel_mult": [1, 2, 2], "transformer_depth": [1, 1, 0], "transformer_depth_output": [1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 2, "num_heads": 2, "num_head_channels": -1, "use_spatial_transformer": True,
    "context_dim": CONTEXT, "adm_in_channels": None, "use_linear_in_transformer": False, "legacy": False,
    "use_temporal_attention": False, "use_temporal_resblock": False,
}  # fmt: skip
# With the second attention of SD3.5-medium in two of the four blocks.
MMDIT = {
    "in_channels": 16, "patch_size": 2, "depth": 2, "num_blocks": 4, "input_size": None, "adm_in_channels": 32,
    "context_size": CONTEXT, "qk_norm": "rms", "x_block_self_attn_layers": [0, 1],
    "pos_embed_scaling_factor": None, "pos_embed_max_size": 64, "num_patches": 4096,
}  # fmt: skip
PIXART = {
    "in_channels": 4, "hidden_size": 64, "num_heads": 2, "depth": 2, "patch_size": 2, "caption_channels": CONTEXT,
    "model_max_length": 8, "micro_condition": False, "pe_interpolation": 1,
}  # fmt: skip
# Stable Diffusion's, at full size: ComfyUI recognises no smaller one.
SD_VAE = {
    "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
    "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip
SMALL = {"SD15": UNET, "SD3": MMDIT, "PixArtSigma": PIXART}


def build(architecture: str, dtype=torch.float32, **sizes) -> comfy.model_patcher.ModelPatcher:
    """A MODEL of 'SD15', 'SD3' or 'PixArtSigma' with weights of a dtype, small but for the given sizes."""
    sizes = {**SMALL[architecture], **sizes}
    if architecture == "SD3":
        linear = {"in_features": CONTEXT, "out_features": 64 * sizes["depth"]}
        sizes["context_embedder_config"] = {"target": "torch.nn.Linear", "params": linear}
    return build_config(getattr(comfy.supported_models, architecture), sizes, dtype)


def build_config(config, sizes: dict, dtype=None) -> comfy.model_patcher.ModelPatcher:
    """A MODEL of a class of comfy.supported_models, of the given sizes."""
    config = config(dict(sizes))
    config.set_inference_dtype(dtype or torch.float32, None)
    device = comfy.model_management.get_torch_device()
    with torch.inference_mode(False):
        model = config.get_model({}, "").eval().requires_grad_(False)
        _randomise(model.diffusion_model)
    return comfy.model_patcher.ModelPatcher(model, device, torch.device("cpu"))


def _randomise(network: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for tensor in network.state_dict(keep_vars=True).values():
        if not tensor.is_floating_point():
            continue
        # Wide layers get small weights, so that activations keep their size.
        scale = tensor.shape[-1] ** -0.5 if tensor.ndim == 2 else 0.2
        tensor.data = (torch.randn(tensor.shape, generator=generator) * scale).to(tensor.dtype)


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
        _randomise(network.requires_grad_(False))
    return comfy.controlnet.ControlNet(network, load_device=comfy.model_management.get_torch_device())


def unreachable_clip() -> comfy.sd.CLIP:
    """A CLIP object of Gemma 4's class, whose attention is written into its modules."""
    from comfy.text_encoders import gemma4

    from demo.architecture import DemoTokenizer

    sizes = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }  # fmt: skip
    target = ClipTarget(DemoTokenizer, gemma4.gemma4_te(model_class=gemma4.Gemma4_12B))
    return comfy.sd.CLIP(target, model_options={"model_name": "gemma4", "gemma4_model_config": sizes})


def conditions(tokens: int = 8) -> tuple[list, list]:
    """A positive and a negative CONDITIONING."""
    generator = torch.Generator().manual_seed(1)
    pooled = torch.zeros(1, 32)
    return tuple([[torch.randn(1, tokens, CONTEXT, generator=generator), {"pooled_output": pooled}]] for _ in range(2))


def latent(model, size: int, batch: int = 1) -> torch.Tensor:
    """[batch, C, size, size] of the model's latent."""
    channels = model.model.latent_format.latent_channels
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(2))
