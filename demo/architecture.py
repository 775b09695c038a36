"""The demo model's three networks: ComfyUI's own classes, shrunk. Training and the loader node share this file.

All sizes are here and nowhere else. Weights are safetensors in `weights/`; what training measured (the latent's
projection to RGB, for previews) travels in their metadata.
"""

import json
from pathlib import Path

import comfy.latent_formats
import comfy.ldm.flux.model
import comfy.model_base
import comfy.supported_models
import comfy.taesd.taesd
import torch
from comfy import sd1_clip
from comfy.clip_model import CLIPTextModel
from transformers import CLIPTokenizer

WEIGHTS = Path(__file__).parent / "weights"
TOKENIZER = Path(__file__).parent / "tokenizer"
MAX_TOKENS = 20  # a caption of scenes.py has at most 16 with start and end; longer prompts become several chunks

TEXT_CONFIG = {
    "num_hidden_layers": 4, "hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 512,
    "hidden_act": "gelu", "max_position_embeddings": MAX_TOKENS,
}  # fmt: skip
# Flux blocks that share one modulation: few weights for their depth. No pooled text vector, no distilled guidance.
DIFFUSION_CONFIG = {
    "in_channels": 4, "out_channels": 4, "vec_in_dim": None, "context_in_dim": TEXT_CONFIG["hidden_size"],
    "hidden_size": 128, "mlp_ratio": 4.0, "num_heads": 4, "depth": 2, "depth_single_blocks": 10,
    "axes_dim": [8, 12, 12], "theta": 1000, "patch_size": 2, "qkv_bias": True, "guidance_embed": False,
    "txt_ids_dims": [], "global_modulation": True,
}  # fmt: skip


class DemoLatent(comfy.latent_formats.LatentFormat):
    """The demo autoencoder's latent: 4 channels of unit variance at an eighth of the picture's size."""

    def __init__(self, rgb_factors: list, rgb_bias: list):
        self.latent_rgb_factors = rgb_factors
        self.latent_rgb_factors_bias = rgb_bias


class DemoModelConfig(comfy.supported_models.Flux):
    """Flux's sampling (flow matching) and weight handling for the demo's sizes and latent."""

    unet_config = {}
    sampling_settings = {"shift": 0.0}  # log of the time shift: none, a 128 px picture has few tokens
    memory_usage_factor = 0.5

    def __init__(self, latent):
        self.latent_format = lambda: latent
        super().__init__({"image_model": "flux", **DIFFUSION_CONFIG})


class DemoTokenizer(sd1_clip.SD1Tokenizer):
    """CLIP's byte-pair tokenizer over the words of `scenes.py`; other words are spelled letter by letter."""

    def __init__(self, embedding_directory=None, tokenizer_data={}):
        super().__init__(embedding_directory, tokenizer_data, tokenizer=_chunk_tokenizer)


def _chunk_tokenizer(embedding_directory=None, tokenizer_data={}):
    return sd1_clip.SDTokenizer(
        str(TOKENIZER), MAX_TOKENS, embedding_directory=embedding_directory,
        embedding_size=TEXT_CONFIG["hidden_size"], tokenizer_class=CLIPTokenizer, tokenizer_data=tokenizer_data,
    )  # fmt: skip


class DemoTextModel(CLIPTextModel):
    """ComfyUI's CLIP text model with an embedding table as small as the demo's vocabulary."""

    def __init__(self, config_dict, dtype, device, operations):
        super().__init__(config_dict, dtype, device, operations)
        table = operations.Embedding(config_dict["vocab_size"], config_dict["hidden_size"], dtype=dtype, device=device)
        self.set_input_embeddings(table)


def text_config() -> dict:
    """`TEXT_CONFIG` with the vocabulary's size and the end token of the bundled tokenizer."""
    vocabulary = json.loads((TOKENIZER / "vocab.json").read_text())
    return {**TEXT_CONFIG, "vocab_size": len(vocabulary), "eos_token_id": vocabulary["<|endoftext|>"]}


class _TextEncoder(sd1_clip.SDClipModel):
    def __init__(self, device="cpu", dtype=None, model_options={}):
        config = text_config()
        end = config["eos_token_id"]
        super().__init__(
            device, MAX_TOKENS, textmodel_json_config=config, dtype=dtype, model_class=DemoTextModel,
            special_tokens={"start": end - 1, "end": end, "pad": end}, return_projected_pooled=False,
            model_options=model_options,
        )  # fmt: skip


class DemoTextEncoder(sd1_clip.SD1ClipModel):
    """The text encoder in the wrapper that ComfyUI's CLIP object expects."""

    def __init__(self, device="cpu", dtype=None, model_options={}):
        super().__init__(device, dtype, model_options, clip_model=_TextEncoder)


def diffusion_network(operations, dtype=torch.float32) -> comfy.ldm.flux.model.Flux:
    """The bare diffusion network, for training."""
    return comfy.ldm.flux.model.Flux(**DIFFUSION_CONFIG, dtype=dtype, operations=operations)


def autoencoder() -> comfy.taesd.taesd.TAESD:
    """The bare autoencoder, for training. Pictures in 0..1, 4 latent channels at an eighth of the size."""
    return comfy.taesd.taesd.TAESD(latent_channels=4)
