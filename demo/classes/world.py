"""The world of the class-conditional demo model: one coloured shape on 32 × 32 pixels, and everything else left to chance.

A class is a colour and a shape. Within one, place, size, turn, tint, light, stripes, the background's two colours and
a grey disc behind the shape vary, so that a model has variety to keep or to lose.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..scenes import COLOURS, SHAPES, SIGNED_DISTANCE

SIZE = 32  # pixels, both sides
CLASSES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
RADIUS = (5.0, 9.5)  # pixels; every shape has the area of a disc of this radius
TURN = torch.pi / 6  # the most that a shape is turned, either way
TINT = 0.07  # the most that each channel of a shape's colour is off, either way
STRIPED_SHARE = 0.4  # of the shapes
DISC_SHARE = 0.5  # of the pictures have a grey disc


@dataclass(frozen=True)
class Pictures:
    """pixels [B, 3, 32, 32] in 0..1, the classes [B] that they show, and `facts`: what chance chose, each [B, ...].

    x, y and radius of the shape in pixels; background, its mean colour in 0..1; striped and disc, whether there are any.
    """

    pixels: Tensor
    labels: Tensor
    facts: dict[str, Tensor]


def sample(count: int, random: torch.Generator) -> Pictures:
    """Pictures of random classes."""
    return show(torch.randint(len(CLASSES), (count,), generator=random), random)


def draw(labels: Tensor, random: torch.Generator) -> Tensor:
    """[B, 3, 32, 32] in 0..1: pictures of classes [B], all else at random."""
    return show(labels, random).pixels


def show(labels: Tensor, random: torch.Generator) -> Pictures:
    """Pictures of classes [B], all else at random, and what chance chose."""
    chance = _Chance(len(labels), random)
    pixels = _background(chance)
    pixels = _lay(pixels, _grey(chance), _disc_behind(chance))
    pixels = _lay(pixels, _surface(labels, chance), _outline(labels, chance)).clamp(0, 1)
    return Pictures(pixels, labels, chance.facts)


@dataclass(frozen=True)
class _Chance:
    """Random numbers for a batch, each [B, 1, 1]; `facts` keeps what became of them."""

    count: int
    random: torch.Generator
    facts: dict[str, Tensor] = field(default_factory=dict)

    def tell(self, **facts: Tensor) -> None:
        self.facts.update({name: fact.flatten(1).squeeze(1) for name, fact in facts.items()})

    def between(self, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(self.count, 1, 1, generator=self.random)

    def colours(self, low: float, high: float) -> Tensor:
        """[B, 3, 1, 1]"""
        return low + (high - low) * torch.rand(self.count, 3, 1, 1, generator=self.random)


_ALONG = torch.arange(SIZE) + 0.5
_X, _Y = _ALONG[None, None, :], _ALONG[None, :, None]


def _lay(pixels: Tensor, colour: Tensor, share: Tensor) -> Tensor:
    """Colour [B, 3, H, W] over pixels where it covers a share [B, H, W] of them."""
    return torch.lerp(pixels, colour.expand_as(pixels), share[:, None])


def _ramp(chance: _Chance) -> Tensor:
    """[B, 32, 32] in 0..1, rising in a random direction."""
    angle = chance.between(0, 2 * torch.pi)
    return 0.5 + ((_X - SIZE / 2) * angle.cos() + (_Y - SIZE / 2) * angle.sin()) / (SIZE * 2**0.5)


def _background(chance: _Chance) -> Tensor:
    """From one dim colour to another."""
    base = chance.between(0.05, 0.95)[:, None]
    one, other = ((base + chance.colours(-0.15, 0.15)).clamp(0, 1) for _ in "ab")
    chance.tell(background=(one + other) / 2)
    return torch.lerp(one, other, _ramp(chance)[:, None])


def _grey(chance: _Chance) -> Tensor:
    return chance.between(0.1, 0.9)[:, None].expand(-1, 3, SIZE, SIZE)


def _disc_behind(chance: _Chance) -> Tensor:
    x, y, radius = chance.between(0, SIZE), chance.between(0, SIZE), chance.between(2.5, 6)
    there = chance.between(0, 1) < DISC_SHARE
    chance.tell(disc=there)
    return _covered(radius * SIGNED_DISTANCE["circle"]((_X - x) / radius, (_Y - y) / radius)) * there


def _surface(labels: Tensor, chance: _Chance) -> Tensor:
    """The shape's colour: tinted, lit from one side, and striped now and then."""
    palette = torch.tensor([*COLOURS.values()])
    colour = palette[labels // len(SHAPES)][:, :, None, None] + chance.colours(-TINT, TINT)
    light = 1 + chance.between(0, 0.5) * (_ramp(chance) - 0.5)
    waves = torch.sin(_ramp(chance) * chance.between(35, 70))
    striped = chance.between(0, 1) < STRIPED_SHARE
    chance.tell(striped=striped)
    stripes = 1 - 0.35 * striped * (0.5 + 1.5 * waves).clamp(0, 1)
    return colour * (light * stripes)[:, None]


def _outline(labels: Tensor, chance: _Chance) -> Tensor:
    """Share of each pixel that the shape covers, [B, 32, 32]."""
    radius, turn = chance.between(*RADIUS), chance.between(-TURN, TURN)
    margin = 1.25 * radius
    x, y = (margin + chance.between(0, 1) * (SIZE - 2 * margin) for _ in "xy")
    chance.tell(x=x, y=y, radius=radius)
    across, down = (_X - x) / radius, (_Y - y) / radius
    turned = across * turn.cos() + down * turn.sin(), down * turn.cos() - across * turn.sin()
    distances = torch.stack([SIGNED_DISTANCE[shape](*turned) for shape in SHAPES])
    return _covered(radius * distances[labels % len(SHAPES), torch.arange(len(labels))])


def _covered(distance: Tensor) -> Tensor:
    """Share of a pixel at a signed distance in pixels from an edge: anti-aliasing."""
    return (0.5 - distance).clamp(0, 1)
