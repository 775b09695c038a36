"""Captioned scenes of one or two coloured shapes: the world that the demo model knows.

A scene is sampled, described by a caption and rendered with anti-aliased signed distance functions, so that the
training data is endless, reproducible from a seed and needs no download. `scene_checker.py` reads a scene back
from a picture.
"""

from dataclasses import dataclass
from itertools import combinations_with_replacement, islice
from random import Random

import torch

IMAGE_SIZE = 128  # pixels, both sides
COLOURS = {
    "red": (0.86, 0.13, 0.15),
    "green": (0.13, 0.63, 0.22),
    "blue": (0.12, 0.30, 0.85),
    "yellow": (0.97, 0.85, 0.10),
    "purple": (0.55, 0.16, 0.70),
    "orange": (0.97, 0.52, 0.08),
}
BACKGROUNDS = {"white": (0.97, 0.97, 0.97), "black": (0.06, 0.06, 0.06), "gray": (0.55, 0.55, 0.55)}
SHAPES = ("circle", "square", "triangle")
RADII = {"small": (13.0, 15.0), "large": (18.0, 20.5)}  # pixels; every shape has the area of a disc of this radius
RELATIONS = {"left of": (1, 0), "right of": (-1, 0), "above": (0, 1), "below": (0, -1)}  # direction to the second
MARGIN = 4.0  # pixels between a shape and the border
GAP = 6.0  # pixels between two shapes
SINGLE_SHARE = 0.25  # of the scenes: one shape
ONE_COLOUR_SHARE = 0.25  # of the others, beyond chance: which shape is which is hardest to learn where colours agree
HELD_OUT_SHARE = 0.1


@dataclass(frozen=True)
class Shape:
    """One coloured shape; centre and radius in pixels, y downwards."""

    colour: str
    kind: str
    size: str
    x: float
    y: float
    radius: float

    @property
    def pair(self) -> tuple[str, str]:
        return self.colour, self.kind


@dataclass(frozen=True)
class Scene:
    """One or two shapes on a background, and the sentence that describes them."""

    shapes: tuple[Shape, ...]
    background: str
    relation: str | None
    caption: str

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The colour-shape pairs in alphabetical order: what a picture of this scene has to show."""
        return tuple(sorted(shape.pair for shape in self.shapes))

    @property
    def names_background(self) -> bool:
        return self.caption.endswith(f" on a {self.background} background")

    @property
    def largest(self) -> Shape:
        """The shape whose colour is the picture's class, for classifiers."""
        return max(self.shapes, key=lambda shape: shape.radius)


def _held_out_pairs() -> frozenset:
    singles = sorted((colour, kind) for colour in COLOURS for kind in SHAPES)
    doubles = [pair for pair in combinations_with_replacement(singles, 2) if pair[0] != pair[1]]
    return frozenset(Random("held out").sample(doubles, round(HELD_OUT_SHARE * len(doubles))))


# Two-shape combinations that no training caption contains. Each single colour-shape pair does occur in training.
HELD_OUT = _held_out_pairs()


def sample_scene(rng: Random, held_out: bool = False) -> Scene:
    """A random scene. held_out=False never yields a combination of `HELD_OUT`, held_out=True yields only those."""
    pairs = _sample_pairs(rng, held_out)
    sizes = [rng.choice(tuple(RADII)) for _ in pairs]
    background = rng.choice(tuple(BACKGROUNDS))
    relation = rng.choice((None, None, *RELATIONS)) if len(pairs) == 2 else None
    shapes = _place(rng, pairs, sizes, relation)
    return Scene(shapes, background, relation, _caption(rng, shapes, background, relation))


def clear_scenes(rng: Random, count: int) -> list[Scene]:
    """Scenes of one shape, or of two of which one is clearly larger: those that belong to one class."""
    return list(islice(filter(_is_clear, iter(lambda: sample_scene(rng), None)), count))


def _is_clear(scene: Scene) -> bool:
    return len({shape.size for shape in scene.shapes}) == len(scene.shapes)


def _sample_pairs(rng: Random, held_out: bool) -> list[tuple[str, str]]:
    if held_out:
        return rng.sample(rng.choice(sorted(HELD_OUT)), 2)
    while True:
        pairs = [(rng.choice(tuple(COLOURS)), rng.choice(SHAPES)) for _ in range(2)]
        if rng.random() < SINGLE_SHARE:
            pairs = pairs[:1]
        elif rng.random() < ONE_COLOUR_SHARE:
            pairs[1] = (pairs[0][0], pairs[1][1])
        if tuple(sorted(pairs)) not in HELD_OUT:
            return pairs


def _place(rng: Random, pairs, sizes, relation) -> tuple[Shape, ...]:
    """Rejection sampling of centres until the shapes lie apart and the relation holds."""
    while True:
        shapes = []
        for (colour, kind), size in zip(pairs, sizes):
            radius = rng.uniform(*RADII[size])
            border = MARGIN + radius * EXTENT[kind]
            x, y = (rng.uniform(border, IMAGE_SIZE - border) for _ in "xy")
            shapes.append(Shape(colour, kind, size, x, y, radius))
        if len(shapes) == 1 or _apart(*shapes) and (relation is None or relation_holds(*shapes, relation)):
            return tuple(shapes)


def _apart(a: Shape, b: Shape) -> bool:
    reach = a.radius * EXTENT[a.kind] + b.radius * EXTENT[b.kind] + GAP
    return max(abs(a.x - b.x), abs(a.y - b.y)) > reach


def relation_holds(a: Shape, b: Shape, relation: str, slack: float = 0.0) -> bool:
    """True where b lies from a in the direction of the relation, more than in any other direction by -slack pixels."""
    dx, dy = RELATIONS[relation]
    along = dx * (b.x - a.x) + dy * (b.y - a.y)
    across = dy * (b.x - a.x) + dx * (b.y - a.y)
    return along > abs(across) - slack


def _caption(rng: Random, shapes, background, relation) -> str:
    nouns = [_noun(shape, rng.random() < 0.5) for shape in shapes]
    text = f" {relation or 'and'} ".join(nouns)
    return f"{text} on a {background} background" if rng.random() < 0.7 else text


def _noun(shape: Shape, with_size: bool) -> str:
    words = f"{shape.size} {shape.colour} {shape.kind}" if with_size else f"{shape.colour} {shape.kind}"
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


# Signed distance in units of the radius (negative inside) of shapes whose area is π, the unit disc's.

_HALF_SIDE = 0.5 * torch.pi**0.5  # a square of area π
_INRADIUS = (torch.pi / 27**0.5) ** 0.5  # an upright equilateral triangle of area π = 3√3 · inradius²
EXTENT = {"circle": 1.0, "square": _HALF_SIDE, "triangle": 3**0.5 * _INRADIUS}  # half the width


def _disc(x, y):
    return (x * x + y * y).sqrt() - 1


def _square(x, y):
    return torch.maximum(x.abs(), y.abs()) - _HALF_SIDE


def _triangle(x, y):
    y = y - 0.5 * _INRADIUS  # centre the bounding box, so that MARGIN and GAP mean the same for every shape
    sides = 0.5 * 3**0.5 * x.abs() - 0.5 * y
    return torch.maximum(sides, y) - _INRADIUS


SIGNED_DISTANCE = {"circle": _disc, "square": _square, "triangle": _triangle}


def coverage(kind: str, x: float, y: float, radius: float, size: int = IMAGE_SIZE) -> torch.Tensor:
    """[size, size] share of each pixel that the shape covers, anti-aliased, in 0..1."""
    grid = torch.arange(size, dtype=torch.float32) + 0.5
    distance = radius * SIGNED_DISTANCE[kind]((grid[None, :] - x) / radius, (grid[:, None] - y) / radius)
    return (0.5 - distance).clamp(0, 1)


def render(scene: Scene) -> torch.Tensor:
    """[3, IMAGE_SIZE, IMAGE_SIZE] picture in 0..1."""
    image = torch.tensor(BACKGROUNDS[scene.background])[:, None, None].expand(3, IMAGE_SIZE, IMAGE_SIZE)
    for shape in scene.shapes:
        alpha = coverage(shape.kind, shape.x, shape.y, shape.radius)
        image = torch.lerp(image, torch.tensor(COLOURS[shape.colour])[:, None, None].expand_as(image), alpha)
    return image
