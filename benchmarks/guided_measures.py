"""How near pictures that were steered to a colour are to real ones that show it.

accuracy: share whose largest shape has the colour that was asked for, read by demo/scene_checker.py. clean: share of shapes
that overlap their ideal by 90 % or more. Fréchet: distance of the judge's features; joint: of these together with the colour
asked for (https://arxiv.org/abs/1907.08175). precision, recall: k = 3 (https://arxiv.org/abs/1904.06991).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from demo.scene_checker import CLEAN_OVERLAP, read_picture
from demo.scenes import clear_scenes, render
from demo.train_classifier import CLASSES, largest

from .judge import BATCH, frechet, is_within, judge


@dataclass(frozen=True)
class Seen:
    """Of pictures: features [N, F], the colours asked for and those of the largest shapes (-1: no shape), and how many shapes
    there are and how many of these are clean, all [N]."""

    features: Tensor
    asked: Tensor
    shown: Tensor
    shapes: Tensor
    clean: Tensor

    def __getitem__(self, rows: np.ndarray) -> "Seen":
        return Seen(*(getattr(self, field.name)[rows] for field in fields(self)))


@torch.no_grad()
def look(pictures: Tensor, asked: Tensor) -> Seen:
    """pictures [N, 3, 128, 128] in 0..1."""
    eyes = cached_judge()
    found = [read_picture(picture).blobs for picture in pictures]
    colours = [max(blobs, key=lambda blob: blob.radius).colour if blobs else None for blobs in found]
    return Seen(
        features=torch.cat([eyes(batch) for batch in pictures.split(BATCH)]),
        asked=asked,
        shown=torch.tensor([CLASSES.index(colour) if colour in CLASSES else -1 for colour in colours]),
        shapes=torch.tensor([*map(len, found)]),
        clean=torch.tensor([sum(blob.overlap >= CLEAN_OVERLAP for blob in blobs) for blobs in found]),
    )


cached_judge = cache(judge)


def real(count: int) -> Seen:
    """Scenes with a single largest shape, its colour asked for."""
    scenes = clear_scenes(Random("reference"), count)
    return look(torch.stack([render(scene) for scene in scenes]), torch.tensor([*map(largest, scenes)]))


def measures(real: Seen, drawn: Seen) -> Callable[[np.ndarray], dict[str, float]]:
    """Of the drawn pictures with given numbers."""
    is_near_real = is_within(drawn.features, real.features).double()
    weight = real.features.norm(dim=1).mean()
    joined, joined_real = (
        torch.cat([seen.features, weight * F.one_hot(seen.asked, len(CLASSES))], 1) for seen in (drawn, real)
    )

    def of(rows: np.ndarray) -> dict[str, float]:
        some = drawn[rows]
        return {
            "accuracy": (some.shown == some.asked).double().mean().item(),
            "clean": (some.clean.sum() / some.shapes.sum().clamp(min=1)).item(),
            "Fréchet": frechet(real.features, some.features),
            "joint": frechet(joined_real, joined[rows]),
            "precision": is_near_real[rows].mean().item(),
            "recall": is_within(real.features, some.features).double().mean().item(),
        }

    return of
