"""DiT and SiT: one transformer that draws a class in the latent space of Stable Diffusion's VAE.

https://arxiv.org/abs/2212.09748 predicts the noise of DDPM, https://arxiv.org/abs/2401.08740 the velocity of a flow. The
attributes' names are those of the published state dicts. The layers are ComfyUI's own of Stable Diffusion 3, whose blocks
are pairs of these; attention goes through ComfyUI's attention function, so that whatever changes attention there reaches
this network.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.ops
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.ldm.modules.diffusionmodules.mmdit import DismantledBlock, FinalLayer, PatchEmbed, TimestepEmbedder
from torch import Tensor, nn

from ..classifiers import learned_variance

PIXELS = 8  # that a latent stands for, in height and in width


@dataclass(frozen=True)
class DitShape:
    """What a network is built from. Raises ValueError for one that cannot be built.

    width: features of a token. side: tokens in a row, and rows. patch: a token's height and width, of the latent.
    classes: rows of the class embedding. two_outputs: whether the output has as many channels again, which hold the
    variance of DiT, and nothing of use of SiT. flow: whether it is SiT.
    """

    width: int
    depth: int
    heads: int
    patch: int
    side: int
    classes: int
    channels: int = 4
    two_outputs: bool = True
    flow: bool = False

    def __post_init__(self) -> None:
        if not all((self.width, self.patch, self.side, self.classes)):
            raise ValueError("some of its weights are empty: the file is not complete.")
        if self.width % self.heads:
            raise ValueError(f"num_heads = {self.heads} does not divide its width of {self.width}.")


class Block(DismantledBlock):
    """Self-attention and a feed-forward part, each scaled and gated by the embedding of time and class (adaLN-Zero)."""

    def forward(self, x: Tensor, embedding: Tensor, transformer_options: dict[str, Any]) -> Tensor:
        qkv, kept = self.pre_attention(x, embedding)
        mixed = optimized_attention(*qkv, heads=self.attn.num_heads, transformer_options=transformer_options)
        return self.post_attention(mixed, *kept)


class DiT(nn.Module):
    """ε(x_t, t, y) and v, which tells the variance of a step; or the velocity n − x0 of a flow.

    operations, dtype, device: ComfyUI's layers and where their weights are made.
    """

    def __init__(
        self,
        shape: DitShape,
        operations: Any = nn,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.dtype = shape, dtype
        place: dict[str, Any] = {"dtype": dtype, "device": device}
        layers = {**place, "operations": operations}
        width, outputs = shape.width, shape.channels * (2 if shape.two_outputs else 1)
        self.x_embedder = PatchEmbed(
            patch_size=shape.patch, in_chans=shape.channels, embed_dim=width, dynamic_img_pad=False, **layers
        )
        self.t_embedder = TimestepEmbedder(width, **layers)
        self.y_embedder = nn.ModuleDict({"embedding_table": operations.Embedding(shape.classes, width, **place)})
        self.pos_embed = nn.Parameter(torch.empty(1, shape.side**2, width, **place))
        self.blocks = nn.ModuleList(Block(width, shape.heads, qkv_bias=True, **layers) for _ in range(shape.depth))
        self.final_layer = FinalLayer(width, shape.patch, outputs, **layers)

    @property
    def class_table(self) -> Tensor:
        """The embedding of each class [classes, width]."""
        return self.y_embedder.get_parameter("embedding_table.weight")

    def check_size(self, height: int, width: int) -> None:
        """Raises ValueError for a latent of another size than the one that its positions are for."""
        side, asked = PIXELS * self.shape.side * self.shape.patch, (PIXELS * width, PIXELS * height)
        if asked != (side, side):
            raise ValueError(
                f"latent_image: this model draws pictures of {side} × {side} pixels alone, not of {asked[0]} × {asked[1]}. "
                f"Set width and height of Empty Latent Image to {side}."
            )

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor, transformer_options: dict[str, Any] = {}, **_: Any
    ) -> Tensor:
        """x [B, 4, H, W], timesteps [B] and the class embedding context [B, 1, D] to a prediction [B, 4, H, W].

        x is √ᾱ x0 + √(1 − ᾱ) n at a timestep of 0..999 and the prediction ε; of a flow x is (1 − σ) x0 + σ n at a timestep
        σ, and the prediction n − x0. The learned variance goes to whoever asked for it: classifiers/learned_variance.py.
        """
        # SiT counts time from noise to picture, along which its velocity points.
        time = 1 - timesteps if self.shape.flow else timesteps
        embedding = self.t_embedder(time, x.dtype) + context[:, 0]
        tokens = self.x_embedder(x)
        tokens = self._run_blocks(
            tokens + comfy.ops.cast_to_input(self.pos_embed, tokens), embedding, transformer_options
        )
        outputs = self._picture(self.final_layer(tokens, embedding)).split(self.shape.channels, 1)
        if self.shape.flow:
            return -outputs[0]
        if self.shape.two_outputs:
            learned_variance.tell(outputs[1], transformer_options)
        return outputs[0]

    def _run_blocks(self, x: Tensor, embedding: Tensor, transformer_options: dict[str, Any]) -> Tensor:
        """The blocks, or what other nodes put in their place, told of as ComfyUI's transformers do."""
        replacements = transformer_options.get("patches_replace", {}).get("dit", {})
        options = {**transformer_options, "block_type": "single", "total_blocks": len(self.blocks)}
        for number, block in enumerate(self.blocks):
            options["block_index"] = number
            replacement = replacements.get(("single_block", number))
            if replacement is None:
                x = block(x, embedding, options)
            else:
                x = _replaced(block, replacement, x, embedding, options)
        return x

    def _picture(self, tokens: Tensor) -> Tensor:
        """Tokens [B, side², patch² · C], whose channels come last, as [B, C, H, W]."""
        side, patch = self.shape.side, self.shape.patch
        patches = tokens.unflatten(2, (patch, patch, -1)).unflatten(1, (side, side))
        return patches.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def _replaced(
    block: nn.Module, replacement: Callable[..., Any], x: Tensor, embedding: Tensor, options: dict[str, Any]
) -> Tensor:
    """What another node has put in the place of a block gives; it may run the block itself."""

    def original(args: dict[str, Any]) -> dict[str, Any]:
        return {"img": block(args["img"], args["vec"], args["transformer_options"])}

    args = {"img": x, "vec": embedding, "transformer_options": options}
    return replacement(args, {"original_block": original})["img"]
