"""The names of a classifier's classes: files have any values, some of them twice; artists choose by texts, all different."""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..common.printable import printable

SHOWN = 5  # in a message


def distinct_labels(values: Sequence[Any], source: str) -> list[str]:
    """A name for each class. A number is written out, what is empty or no text becomes the class's number, and names that
    several classes have get its number behind them. What was changed is logged. source: where the values are from.
    Raises ValueError for names that cannot be printed.
    """
    source = printable(source)
    for number, value in enumerate(values):
        if isinstance(value, str) and value != printable(value):
            raise ValueError(
                f"{source} names class {number} {value!r:.80}, with half a character: write the name anew."
            )
    labels = told_apart([_text(value, number) for number, value in enumerate(values)])
    changed = [f"'{label}'" for value, label in zip(values, labels) if value != label]
    if changed:
        logging.warning(
            "%s: %d of %d class names are empty, no text, spread over lines or several classes'. They are now %s%s.",
            source, len(changed), len(labels), ", ".join(changed[:SHOWN]), " and so on" if len(changed) > SHOWN else "",
        )  # fmt: skip
    return labels


def told_apart(labels: list[str]) -> list[str]:
    """A number behind each of the names that come several times, and once more where another is called so."""
    counts, taken = Counter(labels), {*labels}
    for number, label in enumerate(labels):
        if counts[label] > 1:
            while label in taken:
                label += f" ({number})"
            taken.add(label)
            labels[number] = label
    return labels


def _text(value: Any, number: int) -> str:
    """On one line, without spaces around it."""
    text = str(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""
    return " ".join(text.split()) or str(number)
