"""guided-diffusion's U-Net (ADM), which draws a class in pixel space: https://arxiv.org/abs/2105.05233.

The attributes' names are those of the published state dicts. Residual blocks are ComfyUI's; attention goes through
ComfyUI's attention function, so that whatever changes attention there reaches this network.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from torch import Tensor, nn

from ..classifiers import learned_variance

GROUPS = 32  # of every normalization


@dataclass(frozen=True)
class AdmShape:
    """What a network is built from. Raises ValueError for one that cannot be built.

    width: features that a multiplier of 1 stands for. depth: residual blocks of a level on the way down, one fewer than
    on the way up. multipliers: one for each level. attention_levels: those with attention, from 0; the middle always
    has it. classes: rows of the class embedding, 0 without one. head_channels: features of an attention head, or None
    for `heads` of them. split_first: whether q, k and v are split before heads ("new attention order"). channels: of
    the picture. learned_variance: whether the output holds the variance, too.
    """

    width: int
    depth: int
    multipliers: tuple[float, ...]
    attention_levels: tuple[int, ...]
    classes: int = 0
    head_channels: int | None = 64
    heads: int = 4
    split_first: bool = False
    channels: int = 3
    learned_variance: bool = True

    def __post_init__(self) -> None:
        if not self.width or any(channels % GROUPS or not channels for channels in self.level_channels):
            raise ValueError(f"its levels have {self.level_channels} channels: multiples of {GROUPS} can be built.")
        for level in (*self.attention_levels, -1):
            channels = self.level_channels[level]
            if self.head_channels and channels % self.head_channels:
                raise ValueError(
                    f"num_head_channels = {self.head_channels} does not divide the {channels} channels of a level with attention."
                )
            if channels % self.heads_of(channels):
                raise ValueError(f"{channels} channels cannot be split into {self.heads} heads.")

    @property
    def level_channels(self) -> list[int]:
        """Features of each level."""
        return [round(self.width * multiplier) for multiplier in self.multipliers]

    @property
    def smallest_side(self) -> int:
        """What the picture's height and width have to be multiples of."""
        return 2 ** (len(self.multipliers) - 1)

    def heads_of(self, channels: int) -> int:
        return max(channels // self.head_channels, 1) if self.head_channels else self.heads


class Attention(nn.Module):
    """Self-attention over all positions of features [B, C, H, W], added to them."""

    def __init__(self, channels: int, shape: AdmShape, operations: Any, **place: Any) -> None:
        super().__init__()
        self.heads, self.split_first = shape.heads_of(channels), shape.split_first
        self.norm = operations.GroupNorm(GROUPS, channels, **place)
        self.qkv = operations.Conv1d(channels, 3 * channels, 1, **place)
        self.proj_out = operations.Conv1d(channels, channels, 1, **place)

    def forward(self, x: Tensor, transformer_options: dict[str, Any]) -> Tensor:
        qkv = self.qkv(self.norm(x.flatten(2)))
        if self.split_first:
            qkv = qkv.unflatten(1, (3, self.heads, -1))
        else:
            qkv = qkv.unflatten(1, (self.heads, 3, -1)).transpose(1, 2)
        q, k, v = qkv.mT.contiguous().unbind(1)  # [B, heads, H·W, C / heads]; fused kernels want features side by side
        mixed = optimized_attention(q, k, v, self.heads, skip_reshape=True, transformer_options=transformer_options)
        return x + self.proj_out(mixed.mT).view_as(x)


class Block(nn.Sequential):
    """A residual block with attention or without, or a convolution: a step of the way down or up."""

    def forward(  # type: ignore[override]  # a sequence of layers that get more than one input
        self, x: Tensor, embedding: Tensor, transformer_options: dict[str, Any]
    ) -> Tensor:
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, embedding)
            elif isinstance(layer, Attention):
                x = layer(x, transformer_options)
                transformer_options["transformer_index"] += 1
            else:
                x = layer(x)
        return x


class AdmUNet(nn.Module):
    """ε(x_t, t, y), and v, which tells the variance of a step, where the network has learned it.

    operations, dtype, device: ComfyUI's layers and where their weights are made.
    """

    def __init__(
        self,
        shape: AdmShape,
        operations: Any = nn,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.dtype = shape, dtype
        place = {"dtype": dtype, "device": device}
        embedded = 4 * shape.width
        self.time_embed = nn.Sequential(
            operations.Linear(shape.width, embedded, **place), nn.SiLU(), operations.Linear(embedded, embedded, **place)
        )
        if shape.classes:
            self.label_emb = operations.Embedding(shape.classes, embedded, **place)
        build = _Builder(shape, operations, place)
        self.input_blocks = nn.ModuleList(build.way_down())
        self.middle_block = build.middle()
        self.output_blocks = nn.ModuleList(build.way_up())
        first, outputs = shape.level_channels[0], shape.channels * (2 if shape.learned_variance else 1)
        self.out = nn.Sequential(
            operations.GroupNorm(GROUPS, first, **place), nn.SiLU(), build.convolution(first, outputs)
        )

    @property
    def class_table(self) -> Tensor | None:
        """The embeddings of the classes, [rows, D]."""
        return self.label_emb.weight if self.shape.classes else None

    def check_size(self, height: int, width: int) -> None:
        """Raises ValueError for pictures that cannot be halved from level to level."""
        side = self.shape.smallest_side
        if height % side or width % side:
            raise ValueError(
                f"latent_image: this model's pictures have sides that are multiples of {side}, and this one is {width} × "
                f"{height}. Change width and height."
            )

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        transformer_options: dict[str, Any] = {},
        **_: Any,
    ) -> Tensor:
        """x [B, 3, H, W] = √ᾱ x0 + √(1 − ᾱ) n, timesteps [B] in 0..999 and the class embedding context [B, 1, D] to ε
        [B, 3, H, W]. The learned variance goes to whoever asked for it: classifiers/learned_variance.py."""
        embedding = self.time_embed(timestep_embedding(timesteps, self.shape.width).to(x.dtype))
        if self.shape.classes:
            assert context is not None  # a class's, as ClassConditional has checked
            embedding = embedding + context[:, 0]
        options = {**transformer_options, "transformer_index": 0}
        skipped = []
        for number, block in enumerate(self.input_blocks):
            x = block(x, embedding, _at(options, "input", number))
            skipped.append(x)
        x = self.middle_block(x, embedding, _at(options, "middle", 0))
        for number, block in enumerate(self.output_blocks):
            x = block(torch.cat([x, skipped.pop()], 1), embedding, _at(options, "output", number))
        x = self.out(x)
        if not self.shape.learned_variance:
            return x
        noise, variance = x.chunk(2, 1)
        learned_variance.tell(variance, transformer_options)
        return noise


def _at(options: dict[str, Any], part: str, number: int) -> dict[str, Any]:
    """The options with the present place in the network, in ComfyUI's words for U-Nets."""
    options["block"] = (part, number)
    return options


@dataclass(frozen=True)
class _Builder:
    shape: AdmShape
    operations: Any
    place: dict[str, Any]

    def convolution(self, before: int, after: int) -> nn.Module:
        return self.operations.Conv2d(before, after, 3, padding=1, **self.place)

    def way_down(self) -> Iterator[Block]:
        before = self.shape.level_channels[0]
        yield Block(self.convolution(self.shape.channels, before))
        for level, channels in enumerate(self.shape.level_channels):
            if level:
                yield Block(self._residual(before, before, down=True))
            for _ in range(self.shape.depth):
                yield Block(self._residual(before, channels), *self._attention(level))
                before = channels

    def middle(self) -> Block:
        last = self.shape.level_channels[-1]
        return Block(self._residual(last, last), *self._attention(-1), self._residual(last, last))

    def way_up(self) -> Iterator[Block]:
        skipped, before = self._skipped(), self.shape.level_channels[-1]
        for level, channels in reversed([*enumerate(self.shape.level_channels)]):
            for number in range(self.shape.depth + 1):
                layers = [self._residual(before + skipped.pop(), channels), *self._attention(level)]
                before = channels
                if level and number == self.shape.depth:
                    layers.append(self._residual(channels, channels, up=True))
                yield Block(*layers)

    def _skipped(self) -> list[int]:
        """Channels after each block on the way down."""
        channels = self.shape.level_channels
        ways = [channels[0], *channels[:-1]]  # into each level: the first convolution, and the ways down
        return [count for way, level in zip(ways, channels) for count in (way, *[level] * self.shape.depth)]

    def _attention(self, level: int) -> list[Attention]:
        if level >= 0 and level not in self.shape.attention_levels:
            return []
        return [Attention(self.shape.level_channels[level], self.shape, self.operations, **self.place)]

    def _residual(self, before: int, channels: int, **direction: Any) -> ResBlock:
        return ResBlock(
            before, 4 * self.shape.width, dropout=0, out_channels=channels, use_scale_shift_norm=True,
            operations=_WithConvolutions(self.operations), **direction, **self.place,
        )  # fmt: skip


class _WithConvolutions:
    """Layers with the one that ResBlock makes by a name of ComfyUI's, for torch's own layers in training."""

    def __init__(self, operations: Any) -> None:
        self.GroupNorm, self.Linear, self._conv = operations.GroupNorm, operations.Linear, operations.Conv2d

    def conv_nd(self, _dims: int, *args: Any, **kwargs: Any) -> nn.Module:
        return self._conv(*args, **kwargs)
