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


def find_blobs(image: torch.Tensor) -> list[Blob]:
    """Every region of a [3, H, W] picture in 0..1 that is not background."""
    pixels = _pixels(image)
    background = np.array(BACKGROUNDS[_background(pixels)])
    foreground = np.linalg.norm(pixels - background[:, None, None], axis=0) > FOREGROUND_DISTANCE
    labels, count = ndimage.label(foreground, structure=np.ones((3, 3)))
    regions = (labels == i + 1 for i in range(count))
    return [_blob(pixels, region) for region in regions if region.sum() >= MIN_AREA]


def _pixels(image: torch.Tensor) -> np.ndarray:
    return image.detach().float().cpu().numpy()


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


def shows_pairs(image: torch.Tensor, scene: Scene) -> bool:
    """True where the picture shows exactly the caption's colour-shape pairs, no more and no fewer."""
    return _are_pairs(find_blobs(image), scene)


def _are_pairs(blobs: list[Blob], scene: Scene) -> bool:
    return Counter(blob.pair for blob in blobs) == Counter(scene.pairs)


def shows_relation(image: torch.Tensor, scene: Scene) -> bool:
    """True where the picture shows the caption's pairs and, where it names one, their relation."""
    blobs = find_blobs(image)
    return _are_pairs(blobs, scene) and (scene.relation is None or _are_related(blobs, scene))


def _are_related(blobs: list[Blob], scene: Scene) -> bool:
    first, second = (scene.shapes[i].pair for i in (0, 1))
    return any(
        a.pair == first and b.pair == second and relation_holds(a, b, scene.relation, READING_ERROR)
        for a in blobs for b in blobs if a is not b
    )  # fmt: skip


def share_shown(image: torch.Tensor, scene: Scene) -> float:
    """The share (0..1) of what a caption asks for that the picture shows: the colour, the kind and the pair of each shape,
    and the background and the relation where it names them, each a question of its own as in a Davidsonian scene graph
    (arXiv 2310.18235). What is there beside that does not count, and a shape answers for one that is asked for alone."""
    blobs = find_blobs(image)
    right = [
        _common([b.colour for b in blobs], [s.colour for s in scene.shapes]),
        _common([b.kind for b in blobs], [s.kind for s in scene.shapes]),
        _common([b.pair for b in blobs], [s.pair for s in scene.shapes]),
    ]
    asked = 3 * len(scene.shapes)
    if scene.names_background:
        asked += 1
        right.append(_background(_pixels(image)) == scene.background)
    if scene.relation is not None:
        asked += 1
        right.append(_are_related(blobs, scene))
    return sum(right) / asked


def _common(shown: list, asked: list) -> int:
    return (Counter(shown) & Counter(asked)).total()
