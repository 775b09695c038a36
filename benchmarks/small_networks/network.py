"""What a small network is made of."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher
from comfy.nested_tensor import NestedTensor

WIDTH = 32  # of the text conditions, where a network leaves the choice


def text(tokens: int = 8, width: int = WIDTH, pooled: int | None = 32, **options):
    """A maker of conditions: [1, tokens, width], a pooled output [1, pooled], and whatever else a network takes."""

    def make(generator: torch.Generator) -> list:
        extra = {name: value(generator) if callable(value) else value for name, value in options.items()}
        if pooled is not None:
            extra["pooled_output"] = torch.randn(1, pooled, generator=generator)
        return [[torch.randn(1, tokens, width, generator=generator), extra]]

    return make


def noise(*shape: int):
    """An option of `text` that is another tensor for each condition."""
    return lambda generator: torch.randn(shape, generator=generator)


@dataclass(frozen=True)
class SmallNetwork:
    """A diffusion network of one of ComfyUI's classes, small enough to build and run in a moment.

    sizes: its unet_config, which ComfyUI reads from the keys of a checkpoint.
    latents: the shape of a latent without its batch dimension; of each part, where a latent is nested (sound, video).
    condition: makes one CONDITIONING from a random generator.
    most: how many latents it takes at once, where it does not take any number.
    weights: makes those of a checkpoint's weights outside of the network without which ComfyUI makes no such model.
    prepare: changes the MODEL, for a mode that another node puts it in.
    building: a context in which ComfyUI builds it, where no sizes make it small.
    since: the release of ComfyUI whose source was first seen to have its class, where that is later than 0.30, or who else
    has it.
    """

    sizes: dict
    latents: tuple[tuple[int, ...], ...]
    condition: Callable[[torch.Generator], list] = text()
    most: int = 2
    weights: Callable[[torch.Generator], dict[str, torch.Tensor]] = lambda generator: {}
    prepare: Callable[[ModelPatcher], None] = lambda model: None
    building: Callable[[], AbstractContextManager] = nullcontext
    since: str = ""

    def conditions(self) -> tuple[list, list]:
        """A positive and a negative CONDITIONING."""
        generator = torch.Generator().manual_seed(1)
        return self.condition(generator), self.condition(generator)

    def latent(self, batch: int = 1) -> torch.Tensor:
        """Noise in the latent's shape; a comfy.nested_tensor.NestedTensor where it has several parts."""
        generator = torch.Generator().manual_seed(2)
        parts = [torch.randn(batch, *shape, generator=generator) for shape in self.latents]
        return NestedTensor(parts) if len(parts) > 1 else parts[0]
