"""What is read off drawn pictures, and how sure it is.

asked: mean share of what a caption asks for that its picture shows. exact: share of pictures with exactly the caption's
colour-shape pairs. relation: those, and where the caption names one, their relation. clean: share of shapes that overlap
their ideal by 90 % or more. Fréchet, precision, recall (k = 3), density and coverage (k = 5): in the judge's features.
diversity: mean distance of the features of two pictures of one caption, relative to their length. clipped: share of pixel
values at 0 or 1. off palette: mean distance (RGB) of pixels to the nearest of the world's colours. Intervals are a
bootstrap's over pictures (SciPy), 95 %; recall and diversity have none.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from random import Random

import numpy as np
import torch
from scipy.stats import bootstrap
from torch import Tensor

from demo.scene_checker import find_blobs, share_shown, shows_pairs, shows_relation
from demo.scenes import BACKGROUNDS, COLOURS, Scene, render, sample_scene

from ..density_coverage import NEIGHBOURS, within_balls
from ..judge import Judge, frechet, is_within, judge

CLEAN = 0.9
LOWER_IS_BETTER = ("Fréchet", "clipped", "off palette")
PALETTE = torch.tensor([*COLOURS.values(), *BACKGROUNDS.values()])


@dataclass(frozen=True)
class Seen:
    """Of pictures [N]: features [N, F]; asked, exact, relation, shapes (how many), clean (how many of them), clipped and off
    palette [N]; and group [N], the same number for pictures of one caption."""

    features: Tensor
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
    overlaps = [[blob.overlap for blob in find_blobs(picture)] for picture in pictures]
    distances = (pictures[:, None] - PALETTE[:, :, None, None]).square().sum(2).sqrt().amin(1)
    return Seen(
        features=_eyes(pictures),
        asked=torch.tensor([*map(share_shown, pictures, scenes)]).double(),
        exact=torch.tensor([*map(shows_pairs, pictures, scenes)]).double(),
        relation=torch.tensor([*map(shows_relation, pictures, scenes)]).double(),
        shapes=torch.tensor([*map(len, overlaps)]).double(),
        clean=torch.tensor([sum(o >= CLEAN for o in of_picture) for of_picture in overlaps]).double(),
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


def measure(real: Seen, drawn: Seen, resamples: int = 0) -> dict[str, dict[str, float]]:
    """For each measure its value and, with resamples, the ends of its interval."""
    near = within_balls(real.features, drawn.features)
    near_real = is_within(drawn.features, real.features).double()
    statistics: dict[str, Callable[[Tensor], float]] = {
        "asked": lambda rows: drawn.asked[rows].mean().item(),
        "exact": lambda rows: drawn.exact[rows].mean().item(),
        "relation": lambda rows: drawn.relation[rows].mean().item(),
        "clean": lambda rows: (drawn.clean[rows].sum() / drawn.shapes[rows].sum().clamp(min=1)).item(),
        "density": lambda rows: near[:, rows].double().sum(0).mean().item() / NEIGHBOURS,
        "coverage": lambda rows: near[:, rows].any(1).double().mean().item(),
        "precision": lambda rows: near_real[rows].mean().item(),
        "Fréchet": lambda rows: frechet(real.features, drawn.features[rows]),
        "clipped": lambda rows: drawn.clipped[rows].mean().item(),
        "off palette": lambda rows: drawn.off_palette[rows].mean().item(),
    }
    found = {name: _with_interval(of, len(drawn.exact), resamples) for name, of in statistics.items()}
    found["recall"] = {"value": is_within(real.features, drawn.features).double().mean().item()}
    found["diversity"] = {"value": _diversity(drawn)}
    return found


def _with_interval(statistic: Callable, count: int, resamples: int) -> dict[str, float]:
    everything = np.arange(count)
    found = {"value": statistic(everything)}
    if not resamples:
        return found
    interval = bootstrap(
        (everything,), statistic, n_resamples=resamples, method="basic", vectorized=False, rng=np.random.default_rng(0)
    ).confidence_interval
    return found | {"low": float(interval.low), "high": float(interval.high)}


def _diversity(drawn: Seen) -> float:
    """0 where no caption has several pictures."""
    length = drawn.features.norm(dim=1).mean()
    several = [g for g in drawn.group.unique() if (drawn.group == g).sum() > 1]
    if not several:
        return 0.0
    distances = [torch.pdist(drawn.features[drawn.group == g]).mean() / length for g in several]
    return torch.stack(distances).mean().item()
