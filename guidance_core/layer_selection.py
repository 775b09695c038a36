"""The words that select layers of a network: `all`, `40%-80%`, `3, 7-9`, and `input`, `middle`, `output` of a U-Net.

The same words mean the same thing for every network: a layer is one transformer block, numbered from 0 in order of
execution. `a%-b%` selects the layers whose middle lies in that share of the depth. Parts are separated by commas.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

GRAMMAR = (
    "'all', depth ranges such as '40%-80%', layer numbers such as '3, 7-9', and for U-Nets 'input', 'middle', 'output'"
)
SECTIONS = ("input", "middle", "output")

# What a part selects: a share of the depth in percent, layers by first and last number, or a section of a U-Net.
Part = tuple[Literal["percent"], float, float] | tuple[Literal["numbers"], int, int] | tuple[Literal["section"], str]

_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%?\s*-\s*(\d+(?:\.\d+)?)%")
_NUMBERS = re.compile(r"(\d{1,9})(?:\s*-\s*(\d{1,9}))?")  # Python reads no numbers of thousands of digits


@dataclass(frozen=True)
class LayerSelection:
    """A parsed selection. `text` is what the user wrote, `parts` its meaning."""

    text: str
    parts: tuple[Part, ...]

    def select(self, sections: Sequence[str | None]) -> frozenset[int]:
        """The selected layer numbers of a network, given for each layer its U-Net section, or None; may be empty."""
        return frozenset(i for i in range(len(sections)) if any(_selects(part, i, sections) for part in self.parts))

    def choose(self, sections: Sequence[str | None]) -> frozenset[int]:
        """As `select`; raises ValueError, naming the number of layers, where nothing is selected."""
        chosen = self.select(sections)
        if not chosen:
            raise ValueError(f"layers = '{self.text}' selects nothing: this model has {_describe(sections)}.")
        return chosen


def parse_layers(text: str) -> LayerSelection:
    """Parses a selection; raises ValueError for text outside the grammar, or empty."""
    words = [word.strip().lower() for word in text.split(",")]
    if not all(words):
        raise ValueError(f"layers = {text!r} is empty or has an empty part: write {GRAMMAR}.")
    return LayerSelection(text, tuple(_parse_part(word, text) for word in words))


def _parse_part(word: str, text: str) -> Part:
    if word == "all":
        return ("percent", 0.0, 100.0)
    if word in SECTIONS:
        return ("section", word)
    if percents := _PERCENT.fullmatch(word):
        low, high = map(float, percents.groups())
        if low < high <= 100:
            return ("percent", low, high)
        raise ValueError(f"layers = {text!r}: {word!r} must rise and end at 100% or before.")
    if numbers := _NUMBERS.fullmatch(word):
        first, last = int(numbers[1]), int(numbers[2] or numbers[1])
        if first <= last:
            return ("numbers", first, last)
        raise ValueError(f"layers = {text!r}: {word!r} must rise.")
    raise ValueError(f"layers = {text!r}: cannot read {word!r}. Write {GRAMMAR}.")


def _selects(part: Part, layer: int, sections: Sequence[str | None]) -> bool:
    match part:
        case ("section", name):
            return sections[layer] == name
        case ("numbers", first, last):
            return first <= layer <= last
        case ("percent", low, high):
            return low <= 100 * (layer + 0.5) / len(sections) <= high


def _describe(sections: Sequence[str | None]) -> str:
    if not any(sections):
        return f"{len(sections)} layers, numbered 0 to {len(sections) - 1}"
    counts = ", ".join(f"{sections.count(name)} in '{name}'" for name in SECTIONS)
    return f"{len(sections)} layers, numbered 0 to {len(sections) - 1} ({counts})"
