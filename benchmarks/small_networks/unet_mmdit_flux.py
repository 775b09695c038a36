"""Stable Diffusion, Cascade, PixArt, HunyuanDiT, Flux and their kin."""

import comfy.clip_vision
import torch

from .network import WIDTH, SmallNetwork, noise, text

SIDE = 16  # of most latents
TEXT_MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 0, 0]])


def vision(width: int):
    """An option of `text` that is a picture to vary, as of unCLIPConditioning."""

    def make(generator: torch.Generator) -> list:
        output = comfy.clip_vision.Output()
        output.image_embeds = torch.randn(1, width, generator=generator)
        return [{"clip_vision_output": output, "strength": 0.8, "noise_augmentation": 0.1}]

    return make


def references(channels: int, *sides: int):
    """An option of `text` that is a square latent for each of the sides."""
    return lambda generator: [torch.randn(1, channels, side, side, generator=generator) for side in sides]


def zero123_weights(generator: torch.Generator) -> dict[str, torch.Tensor]:
    """A checkpoint's weights outside of the diffusion network: a layer from picture and camera to the context."""
    weight = torch.randn(WIDTH, WIDTH + 4, generator=generator) * (WIDTH + 4) ** -0.5
    return {"cc_projection.weight": weight, "cc_projection.bias": torch.zeros(WIDTH)}


UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1, 1],
    "channel_mult": [1, 2, 2], "transformer_depth": [1, 1, 0], "transformer_depth_output": [1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 2, "num_heads": 2, "num_head_channels": -1, "use_spatial_transformer": True,
    "context_dim": WIDTH, "adm_in_channels": None, "use_linear_in_transformer": False, "legacy": False,
    "use_temporal_attention": False, "use_temporal_resblock": False,
}  # fmt: skip
# From Stable Diffusion 2 on, heads have 64 channels: two heads need 128.
UNET_2 = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1],
    "channel_mult": [1, 4], "transformer_depth": [0, 2], "transformer_depth_output": [0, 0, 1, 1],
    "transformer_depth_middle": 2, "use_spatial_transformer": True, "context_dim": WIDTH, "adm_in_channels": None,
    "use_linear_in_transformer": True, "legacy": False, "use_temporal_attention": False,
    "use_temporal_resblock": False,
}  # fmt: skip
UNCLIP_L = {**UNET_2, "num_classes": "sequential", "adm_in_channels": 2 * 768}
UNCLIP_H = {**UNET_2, "num_classes": "sequential", "adm_in_channels": 2 * 1024}
# A pooled output of 32 channels and six numbers of 256 each, five for the refiner.
SDXL = {**UNET_2, "num_classes": "sequential", "adm_in_channels": 32 + 6 * 256}
SDXL_REFINER = {**SDXL, "adm_in_channels": 32 + 5 * 256}
# ComfyUI gives one value for each of four levels to `disable_self_attentions`: all but the innermost have none.
X4_UPSCALER = {
    **UNET, "in_channels": 7, "num_res_blocks": [1, 1, 1, 1], "channel_mult": [1, 2, 2, 2],
    "transformer_depth": [0, 1, 1, 1], "transformer_depth_output": [0, 0, 1, 1, 1, 1, 1, 1],
    "use_linear_in_transformer": True,
}  # fmt: skip
# With one head, to stay small, but for the innermost level.
VIDEO = {
    **UNET_2, "num_res_blocks": [1, 1, 0], "channel_mult": [1, 2, 4], "transformer_depth_output": [0, 0, 1, 1, 1],
    "in_channels": 8, "num_classes": "sequential", "extra_ff_mix_layer": True, "use_spatial_context": True,
    "merge_strategy": "learned_with_images", "merge_factor": 0.0, "video_kernel_size": [3, 1, 1],
    "use_temporal_resblock": True, "use_temporal_attention": True, "disable_temporal_crossattention": False,
}  # fmt: skip

CASCADE_C = {
    "stable_cascade_stage": "c", "c_cond": 32, "c_hidden": [32, 32], "nhead": [2, 2], "blocks": [[1, 2], [2, 1]],
    "c_clip_text": WIDTH, "c_clip_text_pooled": 32, "c_clip_img": 32,
}  # fmt: skip
CASCADE_B = {
    "stable_cascade_stage": "b", "c_cond": 32, "c_hidden": [16, 16, 32, 32], "nhead": [-1, -1, 2, 2],
    "blocks": [[1, 1, 2, 1], [1, 2, 1, 1]], "block_repeat": [[1, 1, 1, 1], [2, 2, 2, 2]], "c_clip": 32,
}  # fmt: skip

# With the second attention of SD3.5-medium in two of the four blocks.
MMDIT = {
    "in_channels": 16, "patch_size": 2, "depth": 2, "num_blocks": 4, "input_size": None, "adm_in_channels": 32,
    "context_size": WIDTH, "qk_norm": "rms", "x_block_self_attn_layers": [0, 1],
    "pos_embed_scaling_factor": None, "pos_embed_max_size": 16, "num_patches": 16**2,
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": WIDTH, "out_features": 128}},
}  # fmt: skip
AURA = {"max_seq": 8**2, "cond_seq_dim": WIDTH, "n_double_layers": 2, "n_layers": 4, "dim": 32, "n_heads": 2,
        "global_conddim": 32}  # fmt: skip

PIXART = {
    "in_channels": 4, "hidden_size": 48, "num_heads": 2, "depth": 2, "patch_size": 2, "caption_channels": WIDTH,
    "model_max_length": 8, "pe_interpolation": 1,
}  # fmt: skip
# The positions are a division by zero below this size.
PIXART_LATENTS = ((4, 34, 32),)

HYDIT = {
    "image_model": "hydit", "depth": 4, "hidden_size": 32, "num_heads": 2, "text_states_dim": WIDTH,
    "text_states_dim_t5": 32, "text_len": 8, "text_len_t5": 8,
}  # fmt: skip
HYDIT_TEXT = text(
    pooled=None, attention_mask=TEXT_MASK, conditioning_mt5xl=noise(1, 8, 32), attention_mask_mt5xl=TEXT_MASK
)

FLUX = {
    "image_model": "flux", "axes_dim": [4, 6, 6], "num_heads": 2, "mlp_ratio": 4.0, "theta": 10000,
    "out_channels": 16, "qkv_bias": True, "txt_ids_dims": [], "in_channels": 16, "hidden_size": 32,
    "context_in_dim": WIDTH, "patch_size": 2, "vec_in_dim": 32, "depth": 2, "depth_single_blocks": 2,
    "guidance_embed": True, "yak_mlp": False, "txt_norm": False,
}  # fmt: skip
FLUX_2 = {
    "image_model": "flux2", "axes_dim": [4, 4, 4, 4], "num_heads": 2, "mlp_ratio": 3.0, "theta": 2000,
    "out_channels": 128, "global_modulation": True, "mlp_silu_act": True, "qkv_bias": False, "ops_bias": False,
    "default_ref_method": "index", "ref_index_scale": 10.0, "txt_ids_dims": [3], "in_channels": 128,
    "hidden_size": 32, "context_in_dim": WIDTH, "patch_size": 1, "vec_in_dim": None, "depth": 2,
    "depth_single_blocks": 2, "guidance_embed": True, "yak_mlp": False, "txt_norm": False,
}  # fmt: skip
# 64 are the channels that enter its guidance layer, always.
CHROMA = {
    "image_model": "chroma", "axes_dim": [4, 6, 6], "num_heads": 2, "mlp_ratio": 4.0, "theta": 10000,
    "out_channels": 64, "qkv_bias": True, "txt_ids_dims": [], "in_channels": 64, "hidden_size": 32,
    "context_in_dim": WIDTH, "patch_size": 2, "vec_in_dim": None, "depth": 2, "depth_single_blocks": 2, "in_dim": 64,
    "out_dim": 32, "hidden_dim": 32, "n_layers": 2,
}  # fmt: skip
CHROMA_RADIANCE = {
    **CHROMA, "image_model": "chroma_radiance", "in_channels": 3, "out_channels": 3, "patch_size": 4,
    "nerf_hidden_size": 16, "nerf_mlp_ratio": 2, "nerf_depth": 2, "nerf_max_freqs": 4, "nerf_tile_size": 512,
    "nerf_final_head_type": "conv", "nerf_embedder_dtype": torch.float32, "use_x0": True,
    "use_sequential_txt_ids": True,
}  # fmt: skip

LATENTS = ((4, SIDE, SIDE),)
LATENTS_16 = ((16, SIDE, SIDE),)
PLAIN = text(pooled=None)
POOLED = text(width=WIDTH, pooled=32)
PICTURE = noise(1, 4, SIDE, SIDE)
# One token for the whole picture; StyleModelApply makes such a mask, which ComfyUI stretches.
REDUX = {"guidance": 3.5, "attention_mask": torch.eye(9)[None].log1p(), "attention_mask_img_shape": (1, 1)}

UNET_MMDIT_FLUX = {
    "LotusD": SmallNetwork({**UNET_2, "num_classes": "sequential", "adm_in_channels": 4}, LATENTS, PLAIN),
    "SD15": SmallNetwork(UNET, LATENTS, PLAIN),
    "SD15_instructpix2pix": SmallNetwork(
        {**UNET, "in_channels": 8}, LATENTS, text(pooled=None, concat_latent_image=PICTURE)
    ),
    # Four numbers tell how the camera turned.
    "Stable_Zero123": SmallNetwork(
        {**UNET, "in_channels": 8},
        LATENTS,
        text(1, WIDTH + 4, None, concat_latent_image=PICTURE),
        weights=zero123_weights,
    ),
    "SD20": SmallNetwork(UNET_2, LATENTS, PLAIN),
    "SD21UnclipL": SmallNetwork(UNCLIP_L, LATENTS, text(pooled=None, unclip_conditioning=vision(768), seed=0)),
    "SD21UnclipH": SmallNetwork(UNCLIP_H, LATENTS, text(pooled=None, unclip_conditioning=vision(1024), seed=0)),
    "SDXL": SmallNetwork(SDXL, LATENTS, POOLED),
    "SDXL_instructpix2pix": SmallNetwork({**SDXL, "in_channels": 8}, LATENTS, text(concat_latent_image=PICTURE)),
    "SDXLRefiner": SmallNetwork(SDXL_REFINER, LATENTS, POOLED),
    # Segmind's have no attention in the middle.
    "SSD1B": SmallNetwork(
        {**SDXL, "transformer_depth_output": [0, 0, 1, 2], "transformer_depth_middle": -1}, LATENTS, POOLED
    ),
    "Segmind_Vega": SmallNetwork({**SDXL, "transformer_depth_middle": -1}, LATENTS, POOLED),
    # The smaller KOALA has no middle at all.
    "KOALA_700M": SmallNetwork(
        {**SDXL, "transformer_depth_output": [0, 0, 2, 2], "transformer_depth_middle": -2}, LATENTS, POOLED
    ),
    "KOALA_1B": SmallNetwork({**SDXL, "transformer_depth_output": [0, 0, 1, 2]}, LATENTS, POOLED),
    "SD_X4Upscaler": SmallNetwork(
        X4_UPSCALER, LATENTS, text(pooled=None, concat_image=noise(1, 3, SIDE, SIDE), noise_augmentation=0.1, seed=0)
    ),
    # The latents of a batch are the frames of one video.
    "SVD_img2vid": SmallNetwork(
        {**VIDEO, "adm_in_channels": 3 * 256}, LATENTS, text(1, pooled=None, concat_latent_image=PICTURE)
    ),
    "SV3D_u": SmallNetwork(
        {**VIDEO, "adm_in_channels": 256}, LATENTS, text(1, pooled=None, concat_latent_image=PICTURE)
    ),
    "SV3D_p": SmallNetwork(
        {**VIDEO, "adm_in_channels": 256 + 2 * 512},
        LATENTS,
        text(1, pooled=None, concat_latent_image=PICTURE, elevation=[10, 10], azimuth=[0, 90]),
    ),
    "Stable_Cascade_C": SmallNetwork(CASCADE_C, ((16, 8, 8),), text(unclip_conditioning=vision(32))),
    "Stable_Cascade_B": SmallNetwork(CASCADE_B, ((4, 32, 32),), text(stable_cascade_prior=noise(1, 16, 3, 3))),
    "SD3": SmallNetwork(MMDIT, LATENTS_16, POOLED),
    "SD3:context_processor": SmallNetwork({**MMDIT, "context_processor_layers": 2}, LATENTS_16, POOLED),
    "AuraFlow": SmallNetwork(AURA, LATENTS, PLAIN),
    "PixArtAlpha": SmallNetwork(
        {**PIXART, "image_model": "pixart_alpha", "micro_condition": True}, PIXART_LATENTS, PLAIN
    ),
    "PixArtSigma": SmallNetwork(
        {**PIXART, "image_model": "pixart_sigma", "micro_condition": False}, PIXART_LATENTS, PLAIN
    ),
    "HunyuanDiT": SmallNetwork(HYDIT, LATENTS, HYDIT_TEXT),
    "HunyuanDiT1": SmallNetwork(
        {**HYDIT, "image_model": "hydit1", "size_cond": True, "use_style_cond": True}, LATENTS, HYDIT_TEXT
    ),
    "Flux": SmallNetwork(FLUX, LATENTS_16, text(guidance=2.5, reference_latents=references(16, 8, 4))),
    "Flux:redux": SmallNetwork(FLUX, LATENTS_16, text(**REDUX)),
    # To the noise come a picture and a mask of eight by eight pixels.
    "FluxInpaint": SmallNetwork(
        {**FLUX, "in_channels": 16 + 16 + 64},
        LATENTS_16,
        text(
            guidance=30.0,
            concat_latent_image=noise(1, 16, SIDE, SIDE),
            concat_mask=(torch.arange(8 * SIDE) % 5 > 1).float().expand(1, 1, 8 * SIDE, -1),
        ),
    ),
    "FluxSchnell": SmallNetwork({**FLUX, "guidance_embed": False}, LATENTS_16, POOLED),
    "Flux2": SmallNetwork(
        FLUX_2, ((128, 8, 8),), text(pooled=None, guidance=4.0, reference_latents=references(128, 4, 2))
    ),
    "LongCatImage": SmallNetwork(
        {**FLUX, "guidance_embed": False, "vec_in_dim": None, "txt_ids_dims": [1, 2]},
        LATENTS_16,
        text(pooled=None, reference_latents=references(16, 8)),
    ),
    "Chroma": SmallNetwork(CHROMA, LATENTS_16, text(pooled=None, guidance=0.0)),
    "ChromaRadiance": SmallNetwork(CHROMA_RADIANCE, ((3, 32, 32),), text(pooled=None, guidance=0.0)),
}
