"""What is read off drawn pictures, and how sure it is.

asked: mean share of what a caption asks for that its picture shows. exact: share of pictures with exactly the caption's
colour-shape pairs. relation: those, and where the caption names one, their relation. clean: share of shapes that overlap
their ideal by 90 % or more. Fréchet, precision, recall (k = 3), density and coverage (k = 5): in the judge's features; density and
coverage in those of an untrained network, too.
diversity: mean distance of the features of two pictures of one caption, relative to the length of real pictures' features. clipped: share of pixel values at 0 or 1. off palette: mean distance
(RGB) of pixels to the nearest of the world's colours. Standard errors are a jackknife's over captions, for given real pictures.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from random import Random

import numpy as np
import torch
from torch import Tensor

from demo.scene_checker import CLEAN_OVERLAP, Shown, read_picture
from demo.scenes import BACKGROUNDS, COLOURS, Scene, render, sample_scene

from ..density_coverage import coverage, density, within_balls
from ..jackknife import K, compared
from ..judge import Judge, frechet, is_within, judge
from ..untrained_judge import features as untrained_features

LOWER_IS_BETTER = ("Fréchet", "clipped", "off palette")
PALETTE = torch.tensor([*COLOURS.values(), *BACKGROUNDS.values()])


@dataclass(frozen=True)
class Seen:
    """Of pictures [N]: features [N, F], and those of an untrained network [N, U]; asked, exact, relation, shapes (how many), clean
    (how many of them), clipped and off palette [N]; and group [N], the same number for pictures of one caption."""

    features: Tensor
    untrained: Tensor
    asked: Tensor
    exact: Tensor
    relation: Tensor
    shapes: Tensor
    clean: Tensor
    clipped: Tensor
    off_palette: Tensor
    group: Tensor

    @classmethod
    def together(cls, parts: list["Seen"]) -> "Seen":
        return cls(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def __getitem__(self, rows) -> "Seen":
        return Seen(*(getattr(self, f.name)[rows] for f in fields(self)))


_eyes: Judge


def open_eyes(quick: bool) -> None:
    """Before anything is looked at. The judge is trained where it is not there yet, which must not happen in two processes
    at once; quick: hardly."""
    global _eyes
    _eyes = judge(10) if quick else judge()


@torch.no_grad()
def look(pictures: Tensor, scenes: list[Scene], groups: list[int]) -> Seen:
    """pictures [B, 3, 128, 128] in 0..1."""
    shown = [*map(read_picture, pictures)]
    overlaps = [[blob.overlap for blob in of_picture.blobs] for of_picture in shown]
    distances = (pictures[:, None] - PALETTE[:, :, None, None]).square().sum(2).sqrt().amin(1)
    return Seen(
        features=_eyes(pictures),
        untrained=untrained_features(pictures),
        asked=torch.tensor([*map(Shown.share_of, shown, scenes)]).double(),
        exact=torch.tensor([*map(Shown.has_pairs_of, shown, scenes)]).double(),
        relation=torch.tensor([*map(Shown.has_relation_of, shown, scenes)]).double(),
        shapes=torch.tensor([*map(len, overlaps)]).double(),
        clean=torch.tensor([sum(o >= CLEAN_OVERLAP for o in of_picture) for of_picture in overlaps]).double(),
        clipped=((pictures <= 0) | (pictures >= 1)).double().mean((1, 2, 3)),
        off_palette=distances.double().mean((1, 2)),
        group=torch.tensor(groups),
    )


def real(count: int, seed: str, held_out: bool = True) -> Seen:
    """Real pictures of scenes that training never saw, or of such as it saw; each a group of its own."""
    rng = Random(seed)
    scenes = [sample_scene(rng, held_out) for _ in range(count)]
    parts = range(0, count, 64)
    return Seen.together(
        [
            look(
                torch.stack([render(scene) for scene in scenes[i : i + 64]]),
                scenes[i : i + 64],
                [*range(i, min(i + 64, count))],
            )
            for i in parts
        ]
    )


def measure(real: Seen, drawn: Seen) -> dict[str, float]:
    """Each measure of drawn pictures."""
    return _Measures(real, drawn)(np.arange(len(drawn.exact)))


def compare(real: Seen, drawn: Mapping[K, Seen], baseline: K) -> dict[K, dict[str, dict[str, float]]]:
    """For each set of pictures, and each measure, its value and standard error, and how much it is above the baseline's, with
    the standard error of that. All sets are of the same captions and noise."""
    measures = {key: _Measures(real, seen) for key, seen in drawn.items()}
    return compared(measures, drawn[baseline].group.numpy(), baseline)


class _Measures:
    """Those of some of the drawn pictures, again and again."""

    def __init__(self, real: Seen, drawn: Seen) -> None:
        self.real, self.drawn = real, drawn
        self.near = within_balls(real.features, drawn.features)
        self.near_untrained = within_balls(real.untrained, drawn.untrained)
        self.near_real = is_within(drawn.features, real.features).double()

    def __call__(self, rows: np.ndarray) -> dict[str, float]:
        real, drawn = self.real, self.drawn[rows]
        near, near_untrained = self.near[:, rows], self.near_untrained[:, rows]
        return {
            "asked": drawn.asked.mean().item(),
            "exact": drawn.exact.mean().item(),
            "relation": drawn.relation.mean().item(),
            "clean": (drawn.clean.sum() / drawn.shapes.sum().clamp(min=1)).item(),
            "density": density(near),
            "coverage": coverage(near),
            "density, untrained": density(near_untrained),
            "coverage, untrained": coverage(near_untrained),
            "precision": self.near_real[rows].mean().item(),
            "Fréchet": frechet(real.features, drawn.features),
            "clipped": drawn.clipped.mean().item(),
            "off palette": drawn.off_palette.mean().item(),
            "recall": is_within(real.features, drawn.features).double().mean().item(),
            "diversity": _diversity(drawn, real),
        }


def _diversity(drawn: Seen, real: Seen) -> float:
    """0 where no caption has several pictures."""
    length = real.features.norm(dim=1).mean()
    several = [g for g in drawn.group.unique() if (drawn.group == g).sum() > 1]
    if not several:
        return 0.0
    distances = [torch.pdist(drawn.features[drawn.group == g]).mean() / length for g in several]
    return torch.stack(distances).mean().item()
