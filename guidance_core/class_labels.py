"""The words that name a classifier's classes: names, the first of a name's synonyms, or numbers.

One class for all images, or one for each image of a batch, on lines of their own or separated by commas. A line that
is a class name as a whole is that class, whatever commas it holds. Letters are compared in Unicode's composed form: file
systems decompose 'é' in the names of folders.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from difflib import get_close_matches

MOST_DIGITS = 9  # of a class number; Python reads no numbers of thousands of digits


def parse_labels(text: str, classes: Sequence[str], owner: str = "classifier") -> tuple[int, ...]:
    """The class numbers that a text names. owner: whose classes they are, for messages.

    Raises ValueError for an empty text, a name that no class or more than one has (with the nearest names), and a number
    outside of 0..len(classes) − 1.
    """
    classes = [*map(_composed, classes)]
    known = _numbers_of_names(classes)
    labels: list[int] = []
    for line in filter(None, map(str.strip, _composed(text).splitlines())):
        words = [line] if line.casefold() in known else filter(None, map(str.strip, line.split(",")))
        labels += [_class_number(word, known, classes, owner) for word in words]
    if not labels:
        raise ValueError(f"labels = {text!r} names no class: write class names or numbers, such as '{classes[0]}'.")
    return tuple(labels)


def labels_of_batch(labels: Sequence[int], batch: int) -> list[int]:
    """One class number for each image of a batch. Raises ValueError where there is neither one label nor one each."""
    if len(labels) not in (1, batch):
        raise ValueError(f"labels has {len(labels)} classes for a batch of {batch} images: give one class, or {batch}.")
    return list(labels) * (batch // len(labels))


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _numbers_of_names(classes: Sequence[str]) -> dict[str, set[int]]:
    known: dict[str, set[int]] = defaultdict(set)
    for number, name in enumerate(classes):
        known[name.strip().casefold()].add(number)
    synonyms: dict[str, set[int]] = defaultdict(set)
    for number, name in enumerate(classes):
        synonyms[name.split(",")[0].strip().casefold()].add(number)
    return {**synonyms, **known}  # a whole name goes before another's synonym


def _class_number(word: str, known: dict[str, set[int]], classes: Sequence[str], owner: str) -> int:
    numbers = known.get(word.casefold(), ())
    spelled_so = [i for i in numbers if classes[i].strip() == word]  # ImageNet has a Cardigan and a cardigan
    if len(spelled_so) == 1:
        return spelled_so[0]
    if len(numbers) == 1:
        return next(iter(numbers))
    if numbers:
        raise ValueError(f"labels: {len(numbers)} classes are called '{word}'; write one's number: {sorted(numbers)}.")
    if word.isdecimal():
        if len(word) <= MOST_DIGITS and int(word) < len(classes):
            return int(word)
        raise ValueError(f"labels: there is no class {word}; the {owner} has {len(classes)}, numbered from 0.")
    near = get_close_matches(word.casefold(), known, n=3, cutoff=0.5)
    names = ", ".join(f"'{classes[min(known[name])]}'" for name in near) or f"'{classes[0]}', '{classes[-1]}'"
    raise ValueError(f"labels: the {owner} knows no class {word!r}. Did you mean {names}?")
