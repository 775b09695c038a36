"""Small networks of other architectures with random weights, built from ComfyUI's own model classes."""

import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch

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
    "in_channels": 16, "patch_size": 2, "depth": 2, "num_blocks": 4, "input_size": None,
    "adm_in_channels": 32, "context_size": CONTEXT, "qk_norm": "rms", "x_block_self_attn_layers": [0, 1],
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": CONTEXT, "out_features": 128}},
    "pos_embed_scaling_factor": None, "pos_embed_max_size": 16, "num_patches": 256,
}  # fmt: skip
PIXART = {
    "in_channels": 4, "hidden_size": 64, "num_heads": 2, "depth": 2, "patch_size": 2,
    "caption_channels": CONTEXT, "model_max_length": 8, "input_size": 128, "micro_condition": False, "pe_interpolation": 1,
}  # fmt: skip


def build(architecture: str) -> comfy.model_patcher.ModelPatcher:
    """A MODEL of 'SD15', 'SD3' or 'PixArtSigma'."""
    config_class = getattr(comfy.supported_models, architecture)
    config = config_class({"SD15": UNET, "SD3": MMDIT, "PixArtSigma": PIXART}[architecture])
    config.set_inference_dtype(torch.float32, None)
    with torch.inference_mode(False):
        model = config.get_model({}, "").eval()
        generator = torch.Generator().manual_seed(0)
        for parameter in model.diffusion_model.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
            parameter.requires_grad_(False)
        for buffer in model.diffusion_model.buffers():
            buffer.data = torch.randn(buffer.shape, generator=generator) * 0.2
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, device, torch.device("cpu"))


def conditions(model, tokens: int = 8) -> tuple[list, list]:
    """A positive and a negative CONDITIONING for the model."""
    generator = torch.Generator().manual_seed(1)
    extra = {"pooled_output": torch.zeros(1, 32)}
    return tuple([[torch.randn(1, tokens, CONTEXT, generator=generator), dict(extra)]] for _ in range(2))


def latent(model, batch: int = 2) -> torch.Tensor:
    channels = model.model.latent_format.latent_channels
    size = 64 if model.model.diffusion_model.__class__.__name__ == "PixArtMS" else 16  # PixArt's smallest
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(2))
