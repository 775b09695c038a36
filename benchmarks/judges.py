"""What the two judges of pictures see: `python -m benchmarks.judges`, a quarter of an hour on one core.

Real pictures, harmed in one way each, are judged as drawn ones are: density and coverage among other real pictures, in the
features of the trained judge and of the untrained one. Writes docs/results/judges.json.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from demo.scenes import COLOURS, IMAGE_SIZE, SHAPES, SIGNED_DISTANCE, Scene, render, sample_scene

from . import results
from .density_coverage import coverage, density, within_balls
from .judge import judge
from .untrained_judge import features as untrained_features

PICTURES, REFERENCE, BATCH = 1008, 2016, 48
Harm = Callable[[Scene, Random], Tensor]


def _two_colours(scene: Scene, rng: Random) -> Tensor:
    """The right half of each shape has another colour."""
    other = replace(scene, shapes=tuple(replace(s, colour=_other(COLOURS, s.colour, rng)) for s in scene.shapes))
    columns = torch.arange(IMAGE_SIZE) + 0.5
    right = torch.zeros(IMAGE_SIZE, IMAGE_SIZE, dtype=torch.bool)
    for shape in scene.shapes:
        rows = (columns - shape.y).abs() < 2 * shape.radius
        right |= rows[:, None] & (columns > shape.x) & (columns < shape.x + 2 * shape.radius)
    return torch.where(right, render(other), render(scene))


def _between_kinds(scene: Scene, rng: Random) -> Tensor:
    """Each outline is the mean of its kind's and another's."""
    picture = render(replace(scene, shapes=()))
    grid = torch.arange(IMAGE_SIZE) + 0.5
    for shape in scene.shapes:
        x, y = (grid[None, :] - shape.x) / shape.radius, (grid[:, None] - shape.y) / shape.radius
        kinds = (shape.kind, _other(SHAPES, shape.kind, rng))
        distance = shape.radius * sum(SIGNED_DISTANCE[kind](x, y) for kind in kinds) / len(kinds)
        colour = torch.tensor(COLOURS[shape.colour])[:, None, None].expand_as(picture)
        picture = torch.lerp(picture, colour, (0.5 - distance).clamp(0, 1))
    return picture


def _specks(scene: Scene, rng: Random) -> Tensor:
    """Two pixels of a hundred have a colour of the palette."""
    picture = render(scene)
    for _ in range(IMAGE_SIZE**2 // 50):
        x, y = rng.randrange(IMAGE_SIZE), rng.randrange(IMAGE_SIZE)
        picture[:, y, x] = torch.tensor(rng.choice([*COLOURS.values()]))
    return picture


def _blurred(pixels: float) -> Harm:
    return lambda scene, _: gaussian_blur(render(scene), [4 * round(pixels) + 1] * 2, [pixels] * 2)


HARMS: dict[str, Harm] = {
    "as they are": lambda scene, _: render(scene),
    "each shape of two colours": _two_colours,
    "each outline between two kinds": _between_kinds,
    "without the smaller shape": lambda scene, _: render(replace(scene, shapes=(scene.largest,))),
    "blurred by 1 pixel": _blurred(1),
    "blurred by 3 pixels": _blurred(3),
    "2 % of specks": _specks,
    "a tenth paler": lambda scene, _: torch.lerp(render(scene), torch.full((3, 1, 1), 0.5), 0.1),
    "a twentieth brighter": lambda scene, _: (render(scene) + 0.05).clamp(max=1),
}


def _other(names, name: str, rng: Random) -> str:
    return rng.choice([n for n in names if n != name])


def _scenes(seed: str, count: int) -> list[Scene]:
    rng = Random(f"judges, {seed}")
    return [sample_scene(rng, held_out=True) for _ in range(count)]


def _pictures(scenes: list[Scene], harm: Harm) -> Iterator[Tensor]:
    rng = Random("harms")
    for i in range(0, len(scenes), BATCH):
        yield torch.stack([harm(scene, rng) for scene in scenes[i : i + BATCH]])


def measure(quick: bool) -> dict:
    count, of_reference = (BATCH, 2 * BATCH) if quick else (PICTURES, REFERENCE)
    see = {"trained": judge(), "untrained": untrained_features}
    scenes = _scenes("reference", of_reference)
    real = {name: torch.cat([*map(eyes, _pictures(scenes, HARMS["as they are"]))]) for name, eyes in see.items()}
    rows: dict[str, dict[str, float]] = {harm: {} for harm in HARMS}
    for harm, row in rows.items():
        for name, eyes in see.items():
            drawn = torch.cat([*map(eyes, _pictures(_scenes("judged", count), HARMS[harm]))])
            near = within_balls(real[name], drawn)
            row |= {f"density, {name}": density(near), f"coverage, {name}": coverage(near)}
        print(harm, row, flush=True)
    return {"pictures": count, "real pictures": of_reference, "rows": rows}


if __name__ == "__main__":
    results.main("judges", __doc__, measure)
