"""Reads the coloured shapes back from a picture of `scenes.py`, so that prompt consistency needs no other model."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from .scenes import BACKGROUNDS, COLOURS, SHAPES, Scene, coverage, relation_holds

FOREGROUND_DISTANCE = 0.25  # RGB distance from the background at which a pixel belongs to a shape
MIN_AREA = 40  # pixels; smaller specks do not count as shapes
MIN_OVERLAP = 0.8  # intersection over union with the ideal shape; below it a blob has no shape
CLEAN_OVERLAP = 0.9  # of a shape that is drawn cleanly
MAX_COLOUR_DISTANCE = 0.25  # RGB
READING_ERROR = 2.0  # pixels; each coordinate of two centres is read to half a pixel


@dataclass(frozen=True)
class Blob:
    """A connected region of a picture. colour or kind is None where the region is none of the known ones."""

    colour: str | None
    kind: str | None
    x: float
    y: float
    radius: float
    overlap: float

    @property
    def pair(self) -> tuple[str | None, str | None]:
        return self.colour, self.kind


@dataclass(frozen=True)
class Shown:
    """What a picture shows: every region that is not background, and the nearest of the known backgrounds."""

    blobs: list[Blob]
    background: str

    def has_pairs_of(self, scene: Scene) -> bool:
        """Exactly the caption's colour-shape pairs, no more and no fewer."""
        return Counter(blob.pair for blob in self.blobs) == Counter(scene.pairs)

    def has_relation_of(self, scene: Scene) -> bool:
        """The caption's pairs and, where it names one, their relation."""
        return self.has_pairs_of(scene) and (scene.relation is None or self._is_related_as(scene))

    def share_of(self, scene: Scene) -> float:
        """The share (0..1) of what a caption asks for that is there: the colour, the kind and the pair of each shape, and the
        background and the relation where it names them, each a question of its own as in a Davidsonian scene graph (arXiv
        2310.18235). What is there beside that does not count, and a shape answers for one that is asked for alone."""
        blobs, shapes = self.blobs, scene.shapes
        right = [
            _common([b.colour for b in blobs], [s.colour for s in shapes]),
            _common([b.kind for b in blobs], [s.kind for s in shapes]),
            _common([b.pair for b in blobs], [s.pair for s in shapes]),
        ]
        asked = 3 * len(shapes)
        if scene.names_background:
            asked += 1
            right.append(self.background == scene.background)
        if scene.relation is not None:
            asked += 1
            right.append(self._is_related_as(scene))
        return sum(right) / asked

    def _is_related_as(self, scene: Scene) -> bool:
        first, second = (scene.shapes[i].pair for i in (0, 1))
        return any(
            a.pair == first and b.pair == second and relation_holds(a, b, scene.relation, READING_ERROR)
            for a in self.blobs for b in self.blobs if a is not b
        )  # fmt: skip


def read_picture(image: torch.Tensor) -> Shown:
    """Of a picture [3, H, W] in 0..1."""
    pixels = image.detach().float().cpu().numpy()
    background = _background(pixels)
    distance = np.linalg.norm(pixels - np.array(BACKGROUNDS[background])[:, None, None], axis=0)
    labels, count = ndimage.label(distance > FOREGROUND_DISTANCE, structure=np.ones((3, 3)))
    regions = (labels == i + 1 for i in range(count))
    return Shown([_blob(pixels, region) for region in regions if region.sum() >= MIN_AREA], background)


def _background(pixels: np.ndarray) -> str:
    border = np.concatenate([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], axis=1)
    return _nearest(np.median(border, axis=1), BACKGROUNDS)[0]


def _nearest(colour, palette) -> tuple[str, float]:
    distances = {name: float(np.linalg.norm(colour - np.array(value))) for name, value in palette.items()}
    name = min(distances, key=distances.get)
    return name, distances[name]


def _blob(pixels, region) -> Blob:
    core = ndimage.binary_erosion(region, iterations=2)
    colour, distance = _nearest(np.median(pixels[:, core if core.any() else region], axis=1), COLOURS)
    rows, columns = np.nonzero(region)
    x, y = (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
    radius = (region.sum() / np.pi) ** 0.5
    overlaps = {kind: _overlap(region, kind, x, y, radius) for kind in SHAPES}
    kind = max(overlaps, key=overlaps.get)
    return Blob(
        colour if distance <= MAX_COLOUR_DISTANCE else None,
        kind if overlaps[kind] >= MIN_OVERLAP else None,
        x, y, radius, overlaps[kind],
    )  # fmt: skip


def _overlap(region, kind, x, y, radius) -> float:
    ideal = coverage(kind, x, y, radius, region.shape[-1]).numpy() > 0.5
    return float((region & ideal).sum() / (region | ideal).sum())


def _common(shown: list, asked: list) -> int:
    return (Counter(shown) & Counter(asked)).total()
