"""A judge of the class-conditional demo world's pictures, in features that no guidance has seen.

As `judge.py` for the other world: trained here, once, on the world's own pictures, to read off what they show and what
was left to chance in them. Its weights stay in `.dev/benchmarks`. On new pictures it names the class of 99.8 % and finds
the stripes, place, size and background, but not the grey discs (52 %, which is chance): variety in these it cannot see.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import ResNetConfig, ResNetModel

from demo.classes import world
from demo.scenes import COLOURS, SHAPES
from tools.environment import DEV

from .judge import trained

WEIGHTS = DEV / "benchmarks" / "class-judge.safetensors"
STEPS, BATCH = 2000, 64
FEATURES = 96
ANSWERS = {"colour": len(COLOURS), "shape": len(SHAPES), "yes or no": 2, "measures": 6}
MEASURES = 10  # weight of their squared error


class ClassJudge(torch.nn.Module):
    """Features [B, FEATURES] of pictures [B, 3, 32, 32] in 0..1."""

    def __init__(self):
        super().__init__()
        self.network = ResNetModel(
            ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 64, FEATURES], depths=[1] * 4, layer_type="basic")
        )
        self.answers = torch.nn.Linear(FEATURES, sum(ANSWERS.values()))

    def forward(self, pictures: Tensor) -> Tensor:
        pixels = 2 * F.interpolate(pictures.float(), scale_factor=2, mode="bilinear") - 1
        return self.network(pixels).pooler_output.flatten(1)

    def classify(self, pictures: Tensor) -> Tensor:
        """The classes [B] of the world that pictures show."""
        colour, shape, *_ = self._answers(pictures)
        return colour.argmax(1) * len(SHAPES) + shape.argmax(1)

    def loss(self, pictures: world.Pictures) -> Tensor:
        colour, shape, yes_or_no, measures = self._answers(pictures.pixels)
        facts = pictures.facts
        whether = torch.stack([facts["striped"], facts["disc"]], 1).float()
        place_and_size = torch.stack([facts["x"] / world.SIZE, facts["y"] / world.SIZE, _share(facts["radius"])], 1)
        return (
            F.cross_entropy(colour, pictures.labels // len(SHAPES))
            + F.cross_entropy(shape, pictures.labels % len(SHAPES))
            + F.binary_cross_entropy_with_logits(yes_or_no, whether)
            + MEASURES * F.mse_loss(measures, torch.cat([place_and_size, facts["background"]], 1))
        )

    def _answers(self, pictures: Tensor) -> tuple[Tensor, ...]:
        return self.answers(self(pictures)).split([*ANSWERS.values()], 1)


def _share(radius: Tensor) -> Tensor:
    """0 for the smallest shapes, 1 for the largest."""
    low, high = world.RADIUS
    return (radius - low) / (high - low)


def class_judge(weights: Path = WEIGHTS, steps: int = STEPS) -> ClassJudge:
    """The judge of a file; trains it where that is not there yet, some three minutes on one core."""
    random = torch.Generator().manual_seed(1)
    return trained(ClassJudge, weights, steps, lambda network: network.loss(world.sample(BATCH, random)))
