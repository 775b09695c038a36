"""Noise-aware classifiers p(y | x_t, t), which read the noisy picture itself, in the layout of guided-diffusion.

https://arxiv.org/abs/2105.05233: the first half of a diffusion U-Net, told the timestep, with attention as its pool.
The state dict is that of the published 64x64_classifier.pt to 512x512_classifier.pt; residual blocks are ComfyUI's.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, TimestepEmbedSequential
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from safetensors.torch import save_file
from torch import Tensor, nn

from .adm_schedules import SCHEDULES
from .weights import NOTES

GROUPS = 32  # of every normalization


@dataclass(frozen=True)
class AdmConfig:
    """The shape of a classifier, and the noise it knows. Raises ValueError for one that cannot be built.

    image_size: height and width of x; it halves from level to level. in_channels: of x, 3 for pixels. width: features
    that a multiplier of 1 stands for. depth: residual blocks of a level, 1 or more. multipliers: one for each level.
    attention_levels: the levels with attention after each block, from 0; the end of the network always has it.
    classes: N. head_channels: features of an attention head. schedule: "linear", "cosine" or "flow".
    """

    image_size: int
    in_channels: int
    width: int
    depth: int
    multipliers: tuple[float, ...]
    attention_levels: tuple[int, ...]
    classes: int
    head_channels: int = 64
    schedule: str = "linear"

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"noise_schedule = '{self.schedule}' is unknown: use one of {', '.join(SCHEDULES)}.")
        if self.image_size % 2 ** (len(self.multipliers) - 1):
            raise ValueError(f"image_size = {self.image_size} cannot be halved for {len(self.multipliers)} levels.")
        if any(not channels or channels % GROUPS for channels in self.channels):
            raise ValueError(f"the levels have {self.channels} channels: use multiples of {GROUPS}.")
        if not self.classes:
            raise ValueError("the network has no classes: the file is not complete.")
        heads_of = {self.channels[level] for level in (*self.attention_levels, -1)}
        if any(channels % self.head_channels for channels in heads_of):
            raise ValueError(
                f"num_head_channels = {self.head_channels} does not divide {sorted(heads_of)}, the channels of the "
                "levels with attention."
            )

    @property
    def channels(self) -> list[int]:
        """Features of each level."""
        return [round(self.width * multiplier) for multiplier in self.multipliers]

    @property
    def pool_size(self) -> int:
        """Height and width of the last level."""
        return self.image_size >> (len(self.multipliers) - 1)


class Attention(nn.Module):
    """Self-attention over all positions of features [B, C, H, W], added to them."""

    def __init__(self, channels: int, head_channels: int) -> None:
        super().__init__()
        self.heads = channels // head_channels
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = _zero(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        qkv = self.qkv(self.norm(flat)).unflatten(1, (self.heads, 3, -1))  # each head's q, k and v together
        mixed = F.scaled_dot_product_attention(*qkv.mT.contiguous().unbind(2))
        return x + self.proj_out(mixed.mT.flatten(1, 2)).view_as(x)


class AttentionPool(nn.Module):
    """Features [B, C, S, S] to logits [B, N]: their mean asks, and all positions answer."""

    def __init__(self, size: int, channels: int, head_channels: int, classes: int) -> None:
        super().__init__()
        self.heads = channels // head_channels
        self.positional_embedding = nn.Parameter(torch.randn(channels, size**2 + 1) / channels**0.5)
        self.qkv_proj = nn.Conv1d(channels, 3 * channels, 1)
        self.c_proj = nn.Conv1d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        tokens = torch.cat([flat.mean(-1, keepdim=True), flat], -1) + self.positional_embedding
        qkv = self.qkv_proj(tokens).unflatten(1, (3, self.heads, -1))  # all heads' q, then k, then v
        q, k, v = qkv.mT.contiguous().unbind(1)
        mixed = F.scaled_dot_product_attention(q[:, :, :1], k, v)
        return self.c_proj(mixed.mT.flatten(1, 2))[:, :, 0]


class _Layers:
    """What ResBlock asks for. ComfyUI's own layers leave new weights uninitialized, which training cannot use."""

    GroupNorm, Linear = nn.GroupNorm, nn.Linear

    @staticmethod
    def conv_nd(_dims: int, *args: Any, **kwargs: Any) -> nn.Module:
        return nn.Conv2d(*args, **kwargs)


class AdmEncoder(nn.Module):
    """The network in the published layout; its attributes' names are the state dict's."""

    def __init__(self, config: AdmConfig) -> None:
        super().__init__()
        self.width, last = config.width, config.channels[-1]
        embedded = 4 * config.width
        self.time_embed = nn.Sequential(nn.Linear(config.width, embedded), nn.SiLU(), nn.Linear(embedded, embedded))
        self.input_blocks = nn.ModuleList(_input_blocks(config))
        self.middle_block = TimestepEmbedSequential(
            _residual(config, last, last), Attention(last, config.head_channels), _residual(config, last, last)
        )
        pool = AttentionPool(config.pool_size, last, config.head_channels, config.classes)
        self.out = nn.Sequential(nn.GroupNorm(GROUPS, last), nn.SiLU(), pool)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """x [B, C, S, S] as its schedule noises it, and timesteps [B] in 0..1000, to logits [B, N]."""
        embedding = self.time_embed(timestep_embedding(timesteps, self.width).to(x.dtype))
        for block in (*self.input_blocks, self.middle_block):
            x = block(x, embedding)
        return self.out(x)


def _input_blocks(config: AdmConfig) -> Iterator[TimestepEmbedSequential]:
    before = config.channels[0]
    yield TimestepEmbedSequential(nn.Conv2d(config.in_channels, before, 3, padding=1))
    for level, channels in enumerate(config.channels):
        if level:
            yield TimestepEmbedSequential(_residual(config, before, before, down=True))
        for _ in range(config.depth):
            attention = [Attention(channels, config.head_channels)] if level in config.attention_levels else []
            yield TimestepEmbedSequential(_residual(config, before, channels), *attention)
            before = channels


def _residual(config: AdmConfig, before: int, channels: int, down: bool = False) -> ResBlock:
    block = ResBlock(
        before, 4 * config.width, dropout=0, out_channels=channels, use_scale_shift_norm=True, down=down,
        operations=_Layers,
    )  # fmt: skip
    _zero(block.out_layers[-1])
    return block


def _zero(layer: nn.Module) -> nn.Module:
    """The last layer of a branch, so that a new network starts as its skip connections alone."""
    for weight in layer.parameters():
        nn.init.zeros_(weight)
    return layer


class NoiseAwareClassifier(nn.Module):
    """p(y | x_t, t) with x in the form that all diffusion models can be brought to.

    channels, image_size: what x has to have. network: its state dict is what a file holds.
    """

    suffix = ".safetensors"

    def __init__(self, network: AdmEncoder, config: AdmConfig) -> None:
        super().__init__()
        self.config, self.channels, self.image_size = config, config.in_channels, config.image_size
        self.network, self.schedule = network, SCHEDULES[config.schedule]()

    def save(self, path: Path, labels: tuple[str, ...], notes: dict[str, Any]) -> None:
        """Writes the file that adm_file.load reads."""
        save_file(self.network.state_dict(), path, {**metadata_of(self.config, labels), NOTES: json.dumps(notes)})

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        """x [B, C, S, S] = √ᾱ x0 + √(1 − ᾱ) n with x0 scaled as in training, and ᾱ [B] in 0..1, to logits [B, N].

        Raises ValueError where x has another size.
        """
        if x.shape[1:] != (self.channels, self.image_size, self.image_size):
            raise ValueError(
                f"This noise-aware classifier reads {self.channels} channels of {self.image_size} × {self.image_size}, "
                f"and what is sampled has {' × '.join(map(str, x.shape[1:]))}."
            )
        return self.network(*self.schedule(x, kept))


def metadata_of(config: AdmConfig, labels: Sequence[str]) -> dict[str, str]:
    """What adm_file.load cannot tell from weights, for the metadata of a safetensors file."""
    return {
        "image_size": str(config.image_size),
        "num_head_channels": str(config.head_channels),
        "noise_schedule": config.schedule,
        "labels": json.dumps(labels),
    }
