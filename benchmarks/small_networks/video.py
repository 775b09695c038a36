"""Video networks but for Wan."""

import math

import comfy.clip_vision
import torch
from comfy.ldm.lightricks.symmetric_patchifier import SymmetricPatchifier, latent_to_pixel_coords

from .network import WIDTH, SmallNetwork, noise, text

FRAMES, SIDE = 3, 4  # of a latent


def latent_of(channels: int, frames: int = FRAMES) -> tuple[tuple[int, ...], ...]:
    return ((channels, frames, SIDE, SIDE),)


def picture(channels: int, frames: int = FRAMES):
    """An option of `text` that is a latent picture."""
    return noise(1, channels, *latent_of(channels, frames)[0][1:])


def same(*shape: int) -> torch.Tensor:
    """An option of `text` that is the same tensor in all conditions."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def denoised(*frames: float) -> torch.Tensor:
    """A mask with a value for each frame: 1 where ComfyUI is to denoise."""
    return torch.tensor(frames, dtype=torch.float32)[None, None, :, None, None].expand(1, 1, -1, SIDE, SIDE).clone()


TEXT_MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 0, 0]])

# Mochi's feed-forward layers allow no other width than 12288.
MOCHI = {
    "image_model": "mochi_preview", "depth": 3, "patch_size": 2, "num_heads": 2, "hidden_size_x": 32,
    "hidden_size_y": 16, "mlp_ratio_x": 12288 / 32, "mlp_ratio_y": 4.0, "learn_sigma": False, "in_channels": 12,
    "qk_norm": True, "qkv_bias": False, "out_bias": True, "attn_drop": 0.0, "patch_embed_bias": True,
    "posenc_preserve_area": True, "timestep_mlp_bias": True, "attend_to_padding": False, "timestep_scale": 1000.0,
    "use_t5": True, "t5_feat_dim": WIDTH, "t5_token_length": 256, "rope_theta": 10000.0,
}  # fmt: skip

# 24 channels of video and 32 of sound.
MINIMAX = {
    "image_model": "minimax_h3", "num_layers": 2, "token_refiner_num_layers": 2, "hidden_size": 48, "latents_dim": 24,
    "audio_latents_dim": 32, "attention_head_dim": 16, "num_attention_heads": 2, "ffn_hidden_size": 64,
    "text_dim": WIDTH, "timestep_input_dim": 32, "time_embed_hidden_size": 32, "time_embed_dim": 32,
    "rope_inv_freq_len": 2,
}  # fmt: skip
MINIMAX_LATENTS = ((24, 2, SIDE, SIDE), (32, 2, 6))

LTX = {
    "image_model": "ltxv", "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2,
    "cross_attention_dim": 32, "caption_channels": WIDTH,
}  # fmt: skip
# What LTX 2.3 has; LTX 2 lacks the gates and the modulation of the cross-attention.
LTX_AV = {
    **LTX, "image_model": "ltxav", "audio_attention_head_dim": 8, "audio_num_attention_heads": 2,
    "audio_cross_attention_dim": 16, "caption_proj_before_connector": True, "cross_attention_adaln": True,
    "apply_gated_attention": True, "use_middle_indices_grid": True, "rope_type": "split",
    "frequencies_precision": "float64", "connector_apply_gated_attention": True, "connector_attention_head_dim": 16,
    "connector_num_attention_heads": 2, "audio_connector_attention_head_dim": 8,
    "audio_connector_num_attention_heads": 2, "connector_num_layers": 2,
}  # fmt: skip
LTX_AV_LATENTS = (*latent_of(128), (8, 6, 16))

HUNYUAN = {
    "image_model": "hunyuan_video", "in_channels": 16, "out_channels": 16, "patch_size": [1, 2, 2], "vec_in_dim": 32,
    "axes_dim": [4, 6, 6], "meanflow": False, "context_in_dim": WIDTH, "hidden_size": 32, "mlp_ratio": 4.0,
    "num_heads": 2, "depth": 2, "depth_single_blocks": 2, "theta": 256, "qkv_bias": True, "byt5": False,
    "guidance_embed": True, "use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False,
}  # fmt: skip
HUNYUAN_15 = {
    **HUNYUAN, "in_channels": 65, "out_channels": 32, "patch_size": [1, 1, 1], "vec_in_dim": None,
    "guidance_embed": False, "use_cond_type_embedding": True, "vision_in_dim": WIDTH, "meanflow_sum": True,
}  # fmt: skip

COSMOS = {
    "image_model": "cosmos", "max_img_h": 240, "max_img_w": 240, "max_frames": 128, "in_channels": 16,
    "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "model_channels": 32, "block_config": "FA-CA-MLP",
    "concat_padding_mask": True, "pos_emb_cls": "rope3d", "pos_emb_learnable": False, "pos_emb_interpolation": "crop",
    "block_x_format": "THWBD", "affline_emb_norm": True, "use_adaln_lora": True, "adaln_lora_dim": 16,
    "num_blocks": 2, "num_heads": 2, "crossattn_emb_channels": WIDTH, "extra_per_block_abs_pos_emb": True,
    "extra_per_block_abs_pos_emb_type": "learnable", "rope_h_extrapolation_ratio": 1.0,
    "rope_w_extrapolation_ratio": 1.0, "rope_t_extrapolation_ratio": 2.0,
}  # fmt: skip
COSMOS_PREDICT2 = {
    "image_model": "cosmos_predict2", "max_img_h": 240, "max_img_w": 240, "max_frames": 128, "in_channels": 17,
    "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "model_channels": 32, "concat_padding_mask": True,
    "crossattn_emb_channels": WIDTH, "pos_emb_cls": "rope3d", "pos_emb_learnable": True,
    "pos_emb_interpolation": "crop", "min_fps": 1, "max_fps": 30, "use_adaln_lora": True, "adaln_lora_dim": 16,
    "num_blocks": 2, "num_heads": 2, "extra_per_block_abs_pos_emb": False, "rope_h_extrapolation_ratio": 3.0,
    "rope_w_extrapolation_ratio": 3.0, "rope_t_extrapolation_ratio": 1.0, "extra_h_extrapolation_ratio": 1.0,
    "extra_w_extrapolation_ratio": 1.0, "extra_t_extrapolation_ratio": 1.0, "rope_enable_fps_modulation": False,
}  # fmt: skip

# Its patches are of four pixels and 33 channels: noise, video and mask.
KANDINSKY = {
    "image_model": "kandinsky5", "model_dim": 32, "axes_dims": (4, 6, 6), "time_dim": 32, "ff_dim": 64,
    "visual_embed_dim": 4 * 33, "num_text_blocks": 2, "num_visual_blocks": 2, "in_text_dim": WIDTH,
    "in_text_dim2": 32,
}  # fmt: skip

# Fixed positions, as in CogVideoX-2b, need a width that 3 divides; rotary ones need heads of 8n.
COGVIDEO = {
    "image_model": "cogvideox", "num_attention_heads": 2, "attention_head_dim": 24, "time_embed_dim": 32,
    "num_layers": 2, "in_channels": 16, "patch_size": 2, "text_embed_dim": WIDTH, "sample_height": SIDE,
    "sample_width": SIDE, "sample_frames": 4 * FRAMES, "use_learned_positional_embeddings": False,
    "use_rotary_positional_embeddings": False,
}  # fmt: skip
COGVIDEO_ROTARY = {**COGVIDEO, "attention_head_dim": 16, "use_rotary_positional_embeddings": True}

# Blocks with weights of their own for the text and blocks that share them; windows in time, whole and shifted by half.
SEEDVR = {
    "image_model": "seedvr2", "vid_dim": 48, "heads": 2, "head_dim": 16, "rope_dim": 12, "num_layers": 4,
    "mm_layers": 2, "txt_in_dim": WIDTH, "norm_eps": 1e-05, "mlp_type": "swiglu", "vid_out_norm": True,
}  # fmt: skip


def vision(generator: torch.Generator) -> comfy.clip_vision.Output:
    output = comfy.clip_vision.Output()
    output.last_hidden_state = torch.randn(1, 5, WIDTH, generator=generator)
    return output


def ltx_guides() -> dict:
    """Options of `text` for a guide of half strength in the latent's last frame, with tokens in half of its places."""
    mask = denoised(1, 1, 0.3)
    mask[..., -1, :, ::2] = -1  # no token here
    _, coordinates = SymmetricPatchifier(1, start_end=True).patchify(torch.zeros(1, 1, 1, SIDE, SIDE))
    entry = {"pre_filter_count": SIDE**2, "strength": 0.5, "pixel_mask": None, "latent_shape": [1, SIDE, SIDE]}
    return {
        "frame_rate": 25,
        "concat_mask": mask,
        "keyframe_idxs": latent_to_pixel_coords(coordinates, (8, 32, 32), causal_fix=True).float(),
        "guide_attention_entries": [entry],
    }


def packed(mask: torch.Tensor) -> torch.Tensor:
    """A mask of LTXAV's video, packed as ComfyUI does with one of the sound, all of which is to be denoised."""
    video, sound = LTX_AV_LATENTS
    return torch.cat([mask.expand(1, *video).reshape(1, 1, -1), torch.ones(1, 1, math.prod(sound))], dim=-1)


LTX_GUIDES = ltx_guides()

# Positive and negative never share a batch: ComfyUI takes their layouts for different even if they are equal.
MINIMAX_TEXT = {"pooled": None, "seed": 0, "minimax_token_tags": torch.tensor([[1, 1, 0, 0, 0, 1, 1, 1]])}
MINIMAX_KEYFRAMES = {
    "minimax_keyframes": [
        {"resolved_frame_index": 0, "latent": same(1, 24, 1, SIDE, SIDE)},
        {"resolved_frame_index": 4, "latent": same(1, 24, 1, SIDE, SIDE)},
    ],
    "minimax_frame_count": 5,
}
MINIMAX_REFERENCES = {
    "minimax_refs": [
        {"kind": "image", "latent_h": SIDE, "latent_w": SIDE, "latent": same(1, 24, 1, SIDE, SIDE)},
        {
            "kind": "video_audio", "latent_t": 2, "latent_h": SIDE, "latent_w": SIDE, "ref_audio_t": 3,
            "latent": same(1, 24, 2, SIDE, SIDE), "audio_latent": same(1, 32, 2, 3),
        },
        {"kind": "audio", "ref_audio_t": 3, "audio_latent": same(1, 32, 2, 3)},
    ]
}  # fmt: skip

VIDEO = {
    "GenmoMochi": SmallNetwork(MOCHI, latent_of(12), text(pooled=None, attention_mask=TEXT_MASK)),
    "LTXV": SmallNetwork(LTX, latent_of(128), text(pooled=None, frame_rate=25, attention_mask=TEXT_MASK)),
    "LTXV:guides": SmallNetwork(LTX, latent_of(128), text(pooled=None, attention_mask=TEXT_MASK, **LTX_GUIDES)),
    "LTXAV": SmallNetwork(
        LTX_AV, LTX_AV_LATENTS, text(pooled=None, frame_rate=25, ref_audio={"tokens": same(1, 4, 128)})
    ),
    "LTXAV:guides": SmallNetwork(
        LTX_AV,
        LTX_AV_LATENTS,
        text(pooled=None, **{**LTX_GUIDES, "concat_mask": packed(LTX_GUIDES["concat_mask"])}),
    ),
    "MiniMaxH3": SmallNetwork(MINIMAX, MINIMAX_LATENTS, text(**MINIMAX_TEXT), most=1),
    "MiniMaxH3:keyframes": SmallNetwork(MINIMAX, MINIMAX_LATENTS, text(**MINIMAX_TEXT, **MINIMAX_KEYFRAMES), most=1),
    "MiniMaxH3:references": SmallNetwork(MINIMAX, MINIMAX_LATENTS, text(**MINIMAX_TEXT, **MINIMAX_REFERENCES), most=1),
    "HunyuanVideo": SmallNetwork(HUNYUAN, latent_of(16), text(guidance=6.0)),
    # With a guidance embedding ComfyUI's network takes no first frame in a batch of more than two.
    "HunyuanVideo:first_frame": SmallNetwork(
        {**HUNYUAN, "guidance_embed": False}, latent_of(16), text(guiding_frame_index=0)
    ),
    "HunyuanVideoI2V": SmallNetwork(
        {**HUNYUAN, "in_channels": 33},
        latent_of(16),
        text(guidance=6.0, concat_latent_image=picture(16, 1), concat_mask=denoised(0, 1, 1)),
    ),
    "HunyuanVideoSkyreelsI2V": SmallNetwork(
        {**HUNYUAN, "in_channels": 32, "guidance_embed": False},
        latent_of(16),
        text(concat_latent_image=picture(16, 1)),
    ),
    # ByT5's projection has fixed widths, which make seven million weights.
    "HunyuanVideo15": SmallNetwork(
        {**HUNYUAN_15, "byt5": True},
        latent_of(32),
        text(
            concat_latent_image=picture(32),
            concat_mask=denoised(0, 1, 1),
            clip_vision_output=vision,
            conditioning_byt5small=noise(1, 4, 1472),
        ),
    ),
    # To the noise come 66 channels: a picture, a video to refine and a mask for each.
    "HunyuanVideo15_SR_Distilled": SmallNetwork(
        {**HUNYUAN_15, "in_channels": 98},
        latent_of(32),
        text(concat_latent_image=picture(66), noise_augmentation=0.7, seed=0, clip_vision_output=vision),
    ),
    "CosmosT2V": SmallNetwork(COSMOS, latent_of(16), text(pooled=None, frame_rate=24)),
    "CosmosI2V": SmallNetwork(
        {**COSMOS, "in_channels": 17},
        latent_of(16),
        text(pooled=None, frame_rate=24, concat_latent_image=picture(16), concat_mask=denoised(0, 1, 1)),
    ),
    "CosmosI2VPredict2": SmallNetwork(
        COSMOS_PREDICT2,
        latent_of(16),
        text(pooled=None, frame_rate=24, concat_latent_image=picture(16), concat_mask=denoised(0, 1, 1)),
    ),
    "Kandinsky5": SmallNetwork(
        KANDINSKY, latent_of(16), text(time_dim_replace=picture(16, 1), concat_mask=denoised(0, 1, 1))
    ),
    "CogVideoX_T2V": SmallNetwork(COGVIDEO, latent_of(16), text(pooled=None)),
    # CogVideoX 1.5, whose patches hold two frames.
    "CogVideoX_I2V": SmallNetwork(
        {**COGVIDEO_ROTARY, "in_channels": 32, "patch_size_t": 2, "ofs_embed_dim": 32},
        latent_of(16, 4),
        text(pooled=None, concat_latent_image=picture(16, 1)),
    ),
    "CogVideoX_Inpaint": SmallNetwork(
        {**COGVIDEO_ROTARY, "in_channels": 48}, latent_of(16), text(pooled=None, concat_latent_image=picture(32))
    ),
    "SeedVR2": SmallNetwork(SEEDVR, latent_of(16, 5), text(pooled=None, condition=same(1, 17, 5, SIDE, SIDE))),
}
