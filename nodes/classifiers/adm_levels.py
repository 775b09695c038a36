"""The levels of a network in the layout of guided-diffusion, told from its weights."""

from torch import Tensor

from .weights import weight_shape


def levels_of(weights: dict[str, Tensor], levels: int, depth: int) -> tuple[int, tuple[float, ...], tuple[int, ...]]:
    """The width of the network, by what each level multiplies it, and the levels that have attention, from 0.

    depth: blocks of a level. Raises ValueError for weights that are missing.
    """
    firsts = [1 + level * (depth + 1) for level in range(levels)]  # the first block of each level
    width = weight_shape(weights, "time_embed.0.weight", 2)[1]
    channels = [weight_shape(weights, f"input_blocks.{first}.0.out_layers.3.weight", 4)[0] for first in firsts]
    with_attention = tuple(i for i in range(levels) if f"input_blocks.{firsts[i]}.1.qkv.weight" in weights)
    return width, tuple(count / max(width, 1) for count in channels), with_attention
