"""Image transformers after Flux: Lumina, Qwen, HiDream and others."""

import comfy.clip_vision
import torch

from .network import WIDTH, SmallNetwork, noise, text

SIDE = 4  # of a latent


def latent_of(channels: int, *frames: int) -> tuple[tuple[int, ...], ...]:
    return ((channels, *frames, SIDE, SIDE),)


def picture(channels: int, *frames: int):
    """An option of `text` that is a latent picture."""
    return noise(1, channels, *frames, SIDE, SIDE)


def several(*makers):
    """An option of `text` that is a list."""
    return lambda generator: [make(generator) for make in makers]


def siglip(generator: torch.Generator) -> comfy.clip_vision.Output:
    output = comfy.clip_vision.Output()
    output.image_sizes = [(3, 32, 48)]
    output.last_hidden_state = torch.randn(1, 2 * 3, WIDTH, generator=generator)
    return output


def tokens(generator: torch.Generator) -> torch.Tensor:
    """A prompt in HiDream-O1's chat template."""
    words = torch.randint(1000, (4,), generator=generator).tolist()
    return torch.tensor([[151644, 872, 198, *words, 151645, 198, 151644, 77091, 198, 151669, 151673]])


def t5_tokens(generator: torch.Generator) -> torch.Tensor:
    return torch.randint(32128, (6,), generator=generator)


# ComfyUI's network looks at one of the pictures that the conditions of a batch have.
RGB = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(3))


# Of NewBie, which is Lumina 2 with a pooled text.
LUMINA = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 32, "cap_feat_dim": WIDTH, "n_layers": 2,
    "qk_norm": True, "n_heads": 2, "n_kv_heads": 1, "axes_dims": [4, 6, 6], "axes_lens": [300, 512, 512],
    "rope_theta": 10000.0, "ffn_dim_multiplier": 4.0, "clip_text_dim": 32, "multiple_of": 16,
}  # fmt: skip
# Its modulation allows no width below 256.
Z_IMAGE = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 256, "cap_feat_dim": WIDTH, "n_layers": 2,
    "qk_norm": True, "n_heads": 8, "n_kv_heads": 8, "axes_dims": [8, 12, 12], "axes_lens": [1536, 512, 512],
    "rope_theta": 256.0, "ffn_dim_multiplier": 0.25, "z_image_modulation": True, "time_scale": 1000.0,
    "pad_tokens_multiple": 32, "multiple_of": 16,
}  # fmt: skip
Z_IMAGE_PIXELS = {
    **Z_IMAGE, "image_model": "zimage_pixel", "patch_size": 4, "in_channels": 3, "decoder_in_channels": 4 * 4 * 3,
    "decoder_hidden_size": 32, "decoder_num_res_blocks": 2, "decoder_max_freqs": 4, "use_x0": True,
}  # fmt: skip

PIXEL_DIT = {
    "image_model": "pixeldit_t2i", "num_groups": 2, "hidden_size": 32, "pixel_hidden_size": 8,
    "pixel_attn_hidden_size": 32, "pixel_num_groups": 2, "patch_depth": 3, "pixel_depth": 2, "patch_size": 4,
    "txt_embed_dim": WIDTH,
}  # fmt: skip
# Of PiD 1.5.
PID = {
    **PIXEL_DIT, "image_model": "pid", "lq_hidden_dim": 8, "lq_interval": 2, "lq_latent_channels": 16,
    "latent_spatial_down_factor": 8, "lq_latent_unpatchify_factor": 1, "lq_conv_padding_mode": "replicate",
    "lq_gate_per_token": True, "pit_lq_inject": True, "rope_ref_h": 2048, "rope_ref_w": 2048,
}  # fmt: skip

HIDREAM = {
    "image_model": "hidream", "attention_head_dim": 16, "axes_dims_rope": [8, 4, 4],
    "caption_channels": [WIDTH, WIDTH], "max_resolution": [128, 128], "in_channels": 16, "llama_layers": [0, 1, 2, 2],
    "num_attention_heads": 2, "num_routed_experts": 4, "num_activated_experts": 2, "num_layers": 2,
    "num_single_layers": 2, "out_channels": 16, "patch_size": 2, "text_emb_dim": 32,
}  # fmt: skip
# The identifiers of its tokens are fixed: they make most of the weights.
HIDREAM_O1 = {
    "image_model": "hidream_o1",
    "text_config_overrides": {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 16, "rope_dims": [4, 2, 2],
    },
    "vision_config_overrides": {
        "hidden_size": 16, "num_heads": 2, "intermediate_size": 32, "depth": 2, "num_position_embeddings": 16,
    },
}  # fmt: skip

OMNIGEN = {
    "image_model": "omnigen2", "axes_dim_rope": [4, 6, 6], "axes_lens": [1024, 1664, 1664], "ffn_dim_multiplier": None,
    "hidden_size": 32, "in_channels": 16, "multiple_of": 16, "norm_eps": 1e-05, "num_attention_heads": 2,
    "num_kv_heads": 1, "num_layers": 2, "num_refiner_layers": 2, "out_channels": None, "patch_size": 2,
    "text_feat_dim": WIDTH, "timestep_scale": 1000.0,
}  # fmt: skip
BOOGU = {
    "image_model": "boogu", "hidden_size": 32, "num_layers": 2, "num_double_stream_layers": 2, "num_refiner_layers": 2,
    "instruction_feat_dim": WIDTH, "num_attention_heads": 2, "num_kv_heads": 1, "multiple_of": 16,
    "axes_dim_rope": (4, 6, 6),
}  # fmt: skip

MAGE_FLOW = {
    "image_model": "mage_flow", "in_channels": 128, "num_layers": 2, "attention_head_dim": 16,
    "num_attention_heads": 2, "joint_attention_dim": WIDTH, "axes_dims_rope": (4, 6, 6),
}  # fmt: skip
# Of Qwen-Image-Edit 2511.
QWEN = {
    "image_model": "qwen_image", "in_channels": 64, "num_layers": 2, "default_ref_method": "index_timestep_zero",
    "attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": WIDTH, "axes_dims_rope": (4, 6, 6),
}  # fmt: skip
# ComfyUI fixes the widths of its positions, thus that of its heads.
JOY = {
    "image_model": "joyimage", "hidden_size": 256, "num_attention_heads": 2, "text_dim": WIDTH,
    "mlp_width_ratio": 0.5, "num_layers": 2,
}  # fmt: skip

IDEOGRAM = {
    "image_model": "ideogram4", "in_channels": 128, "num_layers": 2, "num_attention_heads": 2,
    "attention_head_dim": 16, "intermediate_size": 64, "adaln_dim": 32, "llm_features_dim": WIDTH,
    "mrope_section": (4, 2, 2),
}  # fmt: skip

KREA = {
    "image_model": "krea2", "features": 32, "channels": 16, "patch": 2, "layers": 2, "heads": 2, "kvheads": 1,
    "txtlayers": 3, "txtdim": 16, "txtheads": 2, "txtkvheads": 2,
}  # fmt: skip

LENS = {
    "image_model": "lens", "in_channels": 128, "out_channels": 32, "num_layers": 2, "num_attention_heads": 2,
    "attention_head_dim": 16, "axes_dims_rope": (4, 6, 6), "enc_hidden_dim": 16, "multi_layer_encoder_feature": True,
    "selected_layer_index": (0, 1),
}  # fmt: skip

KANDINSKY = {
    "image_model": "kandinsky5", "model_dim": 32, "axes_dims": (4, 6, 6), "rope_scale_factor": (1.0, 1.0, 1.0),
    "time_dim": 32, "ff_dim": 64, "visual_embed_dim": 4 * 16, "num_text_blocks": 2, "num_visual_blocks": 2,
    "in_text_dim": WIDTH, "in_text_dim2": 32,
}  # fmt: skip

COSMOS = {
    "image_model": "cosmos_predict2", "max_img_h": 240, "max_img_w": 240, "max_frames": 128, "in_channels": 16,
    "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "model_channels": 32, "concat_padding_mask": True,
    "crossattn_emb_channels": WIDTH, "pos_emb_cls": "rope3d", "pos_emb_learnable": True,
    "pos_emb_interpolation": "crop", "min_fps": 1, "max_fps": 30, "use_adaln_lora": True, "adaln_lora_dim": 16,
    "num_blocks": 2, "num_heads": 2, "extra_per_block_abs_pos_emb": False, "rope_h_extrapolation_ratio": 4.0,
    "rope_w_extrapolation_ratio": 4.0, "rope_t_extrapolation_ratio": 1.0, "extra_h_extrapolation_ratio": 1.0,
    "extra_w_extrapolation_ratio": 1.0, "extra_t_extrapolation_ratio": 1.0, "rope_enable_fps_modulation": False,
}  # fmt: skip

# Its text adapter has fixed widths, which make 130 million weights.
ANIMA = {**COSMOS, "image_model": "anima", "crossattn_emb_channels": 1024}

ERNIE = {
    "image_model": "ernie", "hidden_size": 32, "num_attention_heads": 2, "num_layers": 2, "ffn_hidden_size": 64,
    "text_in_dim": 48, "rope_axes_dim": (4, 6, 6),
}  # fmt: skip

# ByT5's projection has fixed widths, which make seven million weights.
HUNYUAN = {
    "image_model": "hunyuan_video", "in_channels": 64, "out_channels": 64, "patch_size": [1, 1], "vec_in_dim": None,
    "axes_dim": [8, 8], "meanflow": True, "context_in_dim": WIDTH, "hidden_size": 32, "mlp_ratio": 4.0,
    "num_heads": 2, "depth": 2, "depth_single_blocks": 2, "theta": 256, "qkv_bias": True, "byt5": True,
    "guidance_embed": True, "use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False,
}  # fmt: skip
HUNYUAN_REFINER = {
    **HUNYUAN, "in_channels": 128, "patch_size": [1, 1, 1], "axes_dim": [4, 6, 6], "byt5": False,
    "guidance_embed": False,
}  # fmt: skip

WHOLE = torch.ones(1, 8, dtype=torch.long)
PADDED = torch.tensor([[1, 1, 1, 1, 1, 1, 0, 0]])

IMAGE_TRANSFORMERS = {
    "Lumina2": SmallNetwork(LUMINA, latent_of(16)),
    "ZImage": SmallNetwork(Z_IMAGE, latent_of(16), text(pooled=None)),
    # The third text that ComfyUI's node gives with two pictures goes through its network alone only.
    "ZImage:references": SmallNetwork(
        {**Z_IMAGE, "siglip_feat_dim": WIDTH},
        latent_of(16),
        text(
            pooled=None,
            reference_latents=several(picture(16), picture(16)),
            reference_latents_text_embeds=several(noise(1, 3, WIDTH), noise(1, 5, WIDTH)),
            clip_vision_outputs=several(siglip, siglip),
        ),
    ),
    "ZImagePixelSpace": SmallNetwork(Z_IMAGE_PIXELS, ((3, 16, 16),), text(pooled=None)),
    "PixelDiTT2I": SmallNetwork(PIXEL_DIT, ((3, 16, 16),), text(pooled=None)),
    "PiD": SmallNetwork(
        PID, ((3, 16, 16),), text(pooled=None, lq_latent=noise(1, 16, 2, 2), degrade_sigma=torch.tensor([0.3]))
    ),
    "HiDream": SmallNetwork(
        HIDREAM, latent_of(16), text(conditioning_llama3=noise(1, 3, 8, WIDTH), concat_latent_image=picture(16))
    ),
    "HiDreamO1": SmallNetwork(HIDREAM_O1, ((3, 64, 64),), text(pooled=None, text_input_ids=tokens)),
    "HiDreamO1:references": SmallNetwork(
        HIDREAM_O1, ((3, 64, 64),), text(pooled=None, text_input_ids=tokens, reference_latents=[RGB])
    ),
    "Omnigen2": SmallNetwork(
        OMNIGEN, latent_of(16), text(pooled=None, attention_mask=WHOLE, reference_latents=several(picture(16)))
    ),
    "Boogu": SmallNetwork(
        BOOGU, latent_of(16), text(pooled=None, attention_mask=WHOLE, reference_latents=several(picture(16)))
    ),
    "MageFlow": SmallNetwork(
        MAGE_FLOW,
        latent_of(128),
        text(pooled=None, attention_mask=PADDED, reference_latents=several(picture(128))),
    ),
    "QwenImage": SmallNetwork(
        QWEN,
        latent_of(16, 1),
        text(pooled=None, attention_mask=PADDED, reference_latents=several(picture(16, 1))),
    ),
    "JoyImage": SmallNetwork(
        JOY, latent_of(16, 1), text(pooled=None, reference_latents=several(picture(16, 1), picture(16, 1)))
    ),
    "Ideogram4": SmallNetwork(IDEOGRAM, latent_of(128), text(pooled=None, attention_mask=PADDED)),
    "Krea2": SmallNetwork(
        KREA,
        latent_of(16, 1),
        text(
            width=3 * 16,
            pooled=None,
            reference_latents=several(picture(16, 1)),
            reference_latents_method="index_timestep_zero",
        ),
    ),
    "Lens": SmallNetwork(LENS, latent_of(128), text(width=2 * 16, pooled=None, attention_mask=PADDED)),
    "Kandinsky5Image": SmallNetwork(KANDINSKY, latent_of(16)),
    "CosmosT2IPredict2": SmallNetwork(COSMOS, latent_of(16, 1), text(pooled=None)),
    "Anima": SmallNetwork(
        ANIMA,
        latent_of(16, 1),
        text(width=1024, pooled=None, t5xxl_ids=t5_tokens, t5xxl_weights=torch.linspace(0.8, 1.2, 6)),
    ),
    "ErnieImage": SmallNetwork(ERNIE, latent_of(128), text(width=48, pooled=None)),
    "HunyuanImage21": SmallNetwork(
        HUNYUAN, latent_of(64), text(pooled=None, guidance=3.5, conditioning_byt5small=noise(1, 4, 1472))
    ),
    # ComfyUI joins pairs of frames of the picture: its first counts twice.
    "HunyuanImage21Refiner": SmallNetwork(
        HUNYUAN_REFINER,
        latent_of(64, 2),
        text(pooled=None, concat_latent_image=picture(32, 3), noise_augmentation=0.1, seed=0),
    ),
}
