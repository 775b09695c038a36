"""guided-diffusion's checkpoints, as published: the network's shape is told from its weights.

What weights cannot say (how heads are cut, the schedule) follows from the published shapes, or from a safetensors
file's metadata: num_head_channels or num_heads, use_new_attention_order, noise_schedule, labels (a JSON list).
"""

from typing import Any

import comfy.latent_formats
from comfy.model_base import ModelType
from torch import Tensor

from ...guidance_core.named_choice import check_choice
from ..classifiers.adm_levels import levels_of
from ..classifiers.rehearsal import on_meta
from ..classifiers.weights import check_weights, count_in_metadata, weight_shape
from .adm_unet import AdmShape, AdmUNet
from .class_model import LINEAR, ClassModelSettings
from .files import names_of_rows

SCHEDULES: dict[str, dict[str, Any]] = {"linear": LINEAR, "cosine": {"beta_schedule": "cosine"}}
OF_64 = (1, 2, 3, 4)  # the multipliers of 64x64_diffusion.pt, which has another order of attention and schedule
OF_128 = (1, 1, 2, 3, 4)  # of 128x128_diffusion.pt, which has four heads of any size
IMAGENET = 1000  # classes; a row more is the null class's
MEMORY_WIDTH = 320  # features at which a model takes as much memory for a position as Stable Diffusion 1.5


def read(
    weights: dict[str, Tensor], metadata: dict[str, str], stem: str
) -> tuple[ClassModelSettings, dict[str, Tensor]]:
    """What a checkpoint is, and its weights. Raises ValueError for one of another network, and for an upsampler."""
    shape = _shape(weights, metadata)
    # No memory for weights that are not the file's.
    expected = on_meta(lambda: AdmUNet(shape), len(weights)).state_dict()
    check_weights(expected, weights, "the model's")
    names = names_of_rows(metadata, shape.classes, shape.classes > IMAGENET)
    schedule = metadata.get("noise_schedule", "cosine" if shape.multipliers == OF_64 else "linear")
    return settings_of(shape, names, schedule), weights


def settings_of(shape: AdmShape, class_names: tuple[str, ...], schedule: str) -> ClassModelSettings:
    """ComfyUI's settings of a model of pixels. Raises ValueError for an unknown schedule."""
    if schedule not in SCHEDULES:
        raise ValueError(f"noise_schedule = '{schedule}' is unknown: use one of {', '.join(SCHEDULES)}.")
    latent, memory = comfy.latent_formats.ChromaRadiance(), shape.width / MEMORY_WIDTH
    return ClassModelSettings(AdmUNet, shape, latent, ModelType.EPS, SCHEDULES[schedule], class_names, memory)


def _shape(weights: dict[str, Tensor], metadata: dict[str, str]) -> AdmShape:
    in_channels = _channels(weights)
    levels, depth = _levels_and_depth(weights)
    width, multipliers, attention_levels = levels_of(weights, levels, depth)
    four_heads = multipliers == OF_128 and "num_head_channels" not in metadata
    new_order = metadata.get("use_new_attention_order", str(multipliers == OF_64))
    check_choice("use_new_attention_order in the metadata", new_order, ("True", "False"))
    return AdmShape(
        width=width,
        depth=depth,
        multipliers=multipliers,
        attention_levels=attention_levels,
        classes=weight_shape(weights, "label_emb.weight", 2)[0] if "label_emb.weight" in weights else 0,
        head_channels=None
        if four_heads or "num_heads" in metadata
        else count_in_metadata(metadata, "num_head_channels", "64"),
        heads=count_in_metadata(metadata, "num_heads", "4"),
        split_first=new_order == "True",
        channels=in_channels,
        learned_variance=weight_shape(weights, "out.2.weight", 4)[0] == 2 * in_channels,
    )


def _channels(weights: dict[str, Tensor]) -> int:
    if not {"input_blocks.0.0.weight", "time_embed.0.weight", "middle_block.1.qkv.weight", "out.2.weight"} <= {
        *weights
    }:
        raise ValueError(
            "these are not the weights of a U-Net of guided-diffusion, such as 128x128_diffusion.pt or "
            "256x256_diffusion_uncond.pt. ComfyUI's own Load Diffusion Model reads other networks, Load DiT / SiT those two."
        )
    channels = weight_shape(weights, "input_blocks.0.0.weight", 4)[1]
    if channels == 6:
        raise ValueError(
            "this is an upsampler, which draws from a smaller picture. Use a model that draws alone, such as "
            "128x128_diffusion.pt."
        )
    if channels != 3:
        raise ValueError(f"it reads {channels} channels; models of pixels have 3.")
    return channels


def _levels_and_depth(weights: dict[str, Tensor]) -> tuple[int, int]:
    """All levels but the first end, on the way up, in a residual block more; each has `depth` blocks and a way down."""
    if any(key.endswith(".0.op.weight") for key in weights):
        raise ValueError(
            "its levels are joined by plain convolutions, as guided-diffusion's training has them without --resblock_updown True. "
            "Load ADM reads models that were trained with it, as those that guided-diffusion published."
        )
    blocks = {key.split(".")[1] for key in weights if key.startswith("input_blocks.")}
    ways_up = {
        key.split(".")[1]
        for key in weights
        if key.startswith("output_blocks.") and key.endswith(".in_layers.2.weight") and key.split(".")[2] != "0"
    }
    levels = len(ways_up) + 1
    if len(blocks) % levels or len(blocks) == levels:
        raise ValueError(f"its {len(blocks)} blocks do not fit {levels} levels: the file is not complete.")
    return levels, len(blocks) // levels - 1
