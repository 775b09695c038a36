"""Networks of sound and of shapes in space."""

import importlib
from contextlib import AbstractContextManager
from unittest import mock

import torch

from .network import WIDTH, SmallNetwork, noise, text


def several(*makers):
    """An option of `text` that is a list."""
    return lambda generator: [make(generator) for make in makers]


def integers(below: int, *shape: int):
    """An option of `text` that is a tensor of numbers from 0."""
    return lambda generator: torch.randint(below, shape, generator=generator)


HUNYUAN3D = {
    "image_model": "hunyuan3d2", "in_channels": 64, "context_in_dim": WIDTH, "hidden_size": 32, "mlp_ratio": 4.0,
    "num_heads": 2, "depth": 2, "depth_single_blocks": 2, "qkv_bias": True, "guidance_embed": False,
}  # fmt: skip
# The later half of the blocks also take what the earlier ones made; the last two have experts.
HUNYUAN3D_21 = {
    "image_model": "hunyuan3d2_1", "in_channels": 64, "context_dim": WIDTH, "hidden_size": 32, "mlp_ratio": 4.0,
    "num_heads": 2, "depth": 5, "qkv_bias": False, "guidance_cond_proj_dim": None, "num_moe_layers": 2,
    "num_experts": 4,
}  # fmt: skip
TRIPO_SPLAT = {
    "image_model": "triposplat", "q_token_length": 12, "model_channels": 32, "cond_channels": WIDTH, "num_blocks": 2,
    "num_refiner_blocks": 2, "num_head_channels": 16, "cond2_channels": 8,
}  # fmt: skip

# Its first stage, of fixed resolution 16, has 4096 tokens.
TRELLIS = {
    "image_model": "trellis2", "resolution": 8, "model_channels": 32, "cond_channels": WIDTH, "num_blocks": 2,
    "num_heads": 2, "mlp_ratio": 2.0, "init_txt_model": True,
}  # fmt: skip
# Pixal3D's: the picture is also projected onto the shape.
PIXAL = {**TRELLIS, "image_attn_mode_shape": "proj", "proj_in_channels_shape": 16}
VOXELS = torch.tensor([[0, x, y, z] for x in (1, 2) for y in (3, 5) for z in (0, 7)])


def trellis_stage(sizes: dict, mode: str, **options) -> SmallNetwork:
    """A later stage, which works on the voxels of one shape."""
    condition = text(
        pooled=None,
        embeds=noise(1, 6, WIDTH),
        trellis2_generation_mode=mode,
        trellis2_coords=VOXELS,
        trellis2_coord_counts=torch.tensor([len(VOXELS)]),
        **options,
    )
    return SmallNetwork(sizes, ((32, len(VOXELS), 1),), condition, most=1, since="0.33")


# The lyric encoder has a fixed size of 83 million weights.
ACE = {
    "audio_model": "ace", "attention_head_dim": 16, "in_channels": 8, "inner_dim": 32, "max_height": 16,
    "max_position": 64, "max_width": 64, "mlp_ratio": 2.5, "num_attention_heads": 2, "num_layers": 2,
    "text_embedding_dim": WIDTH, "lyric_encoder_vocab_size": 64, "ssl_encoder_depths": [1, 1],
    "ssl_latent_dims": [8, 8],
}  # fmt: skip
# Pairs of heads share keys and values; every other layer sees two tokens to each side.
ACE15 = {
    "audio_model": "ace1.5", "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "num_kv_heads": 2,
    "head_dim": 16, "encoder_hidden_size": 32, "encoder_num_heads": 4, "encoder_intermediate_size": 64,
    "num_dit_layers": 2, "num_lyric_layers": 2, "num_timbre_layers": 2, "num_tokenizer_layers": 2, "fsq_dim": 32,
    "sliding_window": 2, "text_hidden_dim": WIDTH,
}  # fmt: skip


def two_narrow_layers() -> AbstractContextManager:
    """MiniMax Music 3 has no sizes to choose: 36 layers with 67 million weights each. What is left has 90 million, since
    the widths of its latents and conditions are fixed."""
    dit = importlib.import_module("comfy.ldm.minimax_music.dit")
    block = dit.TransformerBlock

    def narrow(dim, dim_heads, inner_dim, *settings):
        return block(dim, dim_heads, 64, *settings)

    return mock.patch.multiple(dit, create=True, TransformerBlock=narrow, range=lambda count: range(2))


# The embedding of seconds has a fixed width of 768 and is one of the tokens.
SECONDS = 768
STABLE_AUDIO = {
    "audio_model": "dit1.0", "global_cond_dim": 2 * SECONDS, "project_cond_tokens": True, "embed_dim": 64,
    "num_heads": 2, "timestep_features_type": "learned", "io_channels": 64, "input_concat_dim": 0, "depth": 2,
}  # fmt: skip
STABLE_AUDIO_3 = {
    **STABLE_AUDIO, "global_cond_dim": SECONDS, "num_memory_tokens": 4, "norm_type": "rms_norm",
    "attn_kwargs": {"qk_norm": "rms", "differential": True}, "timestep_features_type": "expo", "io_channels": 256,
    "local_add_cond_dim": 257, "global_cond_shared_embed": True, "global_cond_type": "adaLN",
}  # fmt: skip


def stable_audio_weights(generator: torch.Generator) -> dict[str, torch.Tensor]:
    """A checkpoint's weights outside of the diffusion network, without which ComfyUI makes no StableAudio."""
    prefix = "conditioner.conditioners.seconds_{}.embedder.embedding."
    shapes = {"0.weights": (128,), "1.weight": (SECONDS, 257), "1.bias": (SECONDS,)}
    return {
        prefix.format(end) + name: torch.randn(shape, generator=generator) / shape[-1] ** 0.5
        for end in ("start", "total")
        for name, shape in shapes.items()
    }


def stable_audio_3_weights(generator: torch.Generator) -> dict[str, torch.Tensor]:
    """The same of StableAudio3."""
    prefix = "conditioner.conditioners."
    return {
        prefix + "seconds_total.embedder.embedding.1.weight": torch.randn(SECONDS, 256, generator=generator) / 16,
        prefix + "seconds_total.embedder.embedding.1.bias": torch.randn(SECONDS, generator=generator),
        prefix + "prompt.padding_embedding": torch.randn(SECONDS, generator=generator),
    }


ACE15_TEXT = {"pooled": None, "conditioning_lyrics": noise(1, 6, WIDTH)}

AUDIO_AND_3D = {
    "Hunyuan3Dv2mini": SmallNetwork({**HUNYUAN3D, "depth": 8}, ((64, 12),), text(pooled=None)),
    "Hunyuan3Dv2": SmallNetwork({**HUNYUAN3D, "guidance_embed": True}, ((64, 12),), text(pooled=None, guidance=5.0)),
    "Hunyuan3Dv2_1": SmallNetwork(HUNYUAN3D_21, ((64, 12),), text(pooled=None)),
    "Trellis2": SmallNetwork(TRELLIS, ((32, 16, 16, 16),), text(pooled=None, embeds=noise(1, 6, WIDTH)), since="0.33"),
    "Trellis2:shape": trellis_stage(
        PIXAL, "shape_generation", trellis2_proj_feats=torch.linspace(-1, 1, 8 * 16).view(8, 16)
    ),
    "Trellis2:texture": trellis_stage(
        TRELLIS, "texture_generation", trellis2_shape_slat=torch.linspace(-1, 1, 8 * 32).view(8, 32)
    ),
    # A sequence and the camera.
    "TripoSplat": SmallNetwork(
        TRIPO_SPLAT, ((12, 16), (1, 5)), text(pooled=None, reference_latents=several(noise(1, 8, 2, 3)))
    ),
    "ACEStep": SmallNetwork(ACE, ((8, 16, 12),), text(pooled=None, conditioning_lyrics=integers(64, 1, 6))),
    # With a melody in codes, as ComfyUI's text encoder makes them: one for five steps.
    "ACEStep15": SmallNetwork(
        ACE15,
        ((64, 15),),
        text(audio_codes=lambda generator: integers(64000, 1, 3)(generator).tolist(), **ACE15_TEXT),
    ),
    # With a sound to be covered.
    "ACEStep15:reference": SmallNetwork(
        ACE15, ((64, 15),), text(reference_audio_timbre_latents=several(noise(1, 64, 15)), **ACE15_TEXT)
    ),
    # Eight frames of sound in the conditions, 13 in the latent.
    "MiniMaxMusic3": SmallNetwork(
        {"audio_model": "minimax_music3"},
        ((128, 13),),
        text(width=8 * 4096, pooled=None, conditioning_scale=torch.ones(1, 1, 1)),
        building=two_narrow_layers,
        since="0.33",
    ),
    "StableAudio": SmallNetwork(
        STABLE_AUDIO,
        ((64, 12),),
        text(width=SECONDS, pooled=None, seconds_start=0, seconds_total=10),
        weights=stable_audio_weights,
    ),
    "StableAudio3": SmallNetwork(
        STABLE_AUDIO_3,
        ((256, 12),),
        text(
            width=SECONDS,
            pooled=None,
            seconds_total=10,
            concat_latent_image=noise(1, 256, 12),
            concat_mask=torch.tensor([[[0.0] * 4 + [1.0] * 8]]),
        ),
        weights=stable_audio_3_weights,
    ),
}
