"""Noise-aware classifiers from state dicts: the network's shape is told from its weights, the rest from metadata."""

import re
from collections.abc import Collection
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from .adm import AdmConfig, AdmEncoder, NoiseAwareClassifier
from .adm_levels import levels_of
from .rehearsal import on_meta, prepared, rehearse
from .weights import check_weights, class_names, count_in_metadata, notes_of, weight_shape

POSITIONS = "out.2.positional_embedding"


def is_adm(keys: Collection[str]) -> bool:
    """Whether a state dict of these keys is of this layout."""
    return {"time_embed.0.weight", "input_blocks.0.0.weight", "middle_block.1.qkv.weight", POSITIONS} <= set(keys)


def load(
    weights: dict[str, Tensor], metadata: dict[str, str], stem: str
) -> tuple[NoiseAwareClassifier, list[str], dict[str, Any]]:
    """The classifier of a state dict, its class names, and how it was calibrated. stem: the file's name.

    All metadata is optional. image_size: by default what the name begins with, as in 64x64_classifier. noise_schedule:
    by default as published, cosine for 64 and linear for others. num_head_channels: by default 64. labels: a JSON
    list; by default ImageNet's for 1000 classes, and numbers otherwise. Raises ValueError for weights or metadata
    that do not fit.
    """
    config = _config(weights, metadata, stem)
    network = on_meta(lambda: AdmEncoder(config), len(weights))  # no memory for weights that are not the file's
    check_weights(network.state_dict(), weights, "the classifier's")
    numbers = sum(weight.numel() for weight in weights.values())
    rehearse(network, numbers, prepared(torch.clone, _example(config)), torch.empty(1, device="meta"))
    # Copies, so that nothing stays mapped to a file that its user may replace.
    copies = {key: weight.to(torch.float32, copy=True).contiguous() for key, weight in weights.items()}
    network.load_state_dict(copies, assign=True)
    return NoiseAwareClassifier(network, config), class_names(metadata, config.classes), notes_of(metadata)


def _example(config: AdmConfig) -> Tensor:
    return torch.empty(1, config.in_channels, config.image_size, config.image_size, device="meta")


def _config(weights: dict[str, Tensor], metadata: dict[str, str], stem: str) -> AdmConfig:
    image_size = _image_size(metadata, stem)
    levels, depth = _levels_and_depth(weights, image_size)
    width, multipliers, attention_levels = levels_of(weights, levels, depth)
    return AdmConfig(
        image_size=image_size,
        in_channels=weight_shape(weights, "input_blocks.0.0.weight", 4)[1],
        width=width,
        depth=depth,
        multipliers=multipliers,
        attention_levels=attention_levels,
        classes=weight_shape(weights, "out.2.c_proj.weight", 3)[0],
        head_channels=count_in_metadata(metadata, "num_head_channels", "64"),
        schedule=metadata.get("noise_schedule", "cosine" if image_size == 64 else "linear"),
    )


def _image_size(metadata: dict[str, str], stem: str) -> int:
    named = re.match(r"(\d+)x\1_classifier", stem)
    if not named and "image_size" not in metadata:
        raise ValueError(
            f"'{stem}' does not say the size of the classifier's pictures: let the file's name begin with it, as "
            "64x64_classifier does, the word included, or give 'image_size' in a safetensors file's metadata."
        )
    return count_in_metadata(metadata, "image_size", named[1] if named else "")


def _levels_and_depth(weights: dict[str, Tensor], image_size: int) -> tuple[int, int]:
    """A level is a count of `depth` blocks and one more: the way down to it, or the first convolution."""
    size = isqrt(max(weight_shape(weights, POSITIONS, 2)[1] - 1, 0))
    levels = next((n for n in range(1, 20) if size << (n - 1) == image_size), 0)
    blocks = len({key.split(".")[1] for key in weights if key.startswith("input_blocks.")})
    if not levels or blocks % levels or blocks == levels:
        raise ValueError(
            f"these are not the weights of a classifier of {image_size} × {image_size}: its {blocks} blocks end at "
            f"{size} × {size}. Correct the size in the file's name or metadata."
        )
    return levels, blocks // levels - 1
