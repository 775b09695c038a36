"""What the words of a label input mean; no ComfyUI."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models import ResNet50_Weights

from guidance_core.class_labels import labels_of_batch, parse_labels

ANIMALS = ("tench, Tinca tinca", "goldfish, Carassius auratus", "crane", "ostrich, Struthio camelus", "crane")
IMAGENET = tuple(ResNet50_Weights.DEFAULT.meta["categories"])


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("tench", (0,)),
        ("Tench, tinca TINCA", (0,)),
        ("goldfish, ostrich", (1, 3)),
        ("goldfish, Carassius auratus\n\n ostrich \n", (1, 3)),
        ("0, 4\n2", (0, 4, 2)),
    ],
)
def test_names_synonyms_and_numbers(text, labels):
    assert parse_labels(text, ANIMALS) == labels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" \n", "names no class: .* such as 'tench, Tinca tinca'"),
        ("godlfish", "knows no class 'godlfish'. Did you mean 'goldfish, Carassius auratus'"),
        ("5", "no class 5; the classifier has 5, numbered from 0"),
        ("-1", "knows no class '-1'"),
        ("9" * 5000, "there is no class 999"),  # too long for Python to read it as a number
        ("\ud800", r"knows no class '\\ud800'"),  # half a character, which no log can hold
        ("crane", r"2 classes are called 'crane'; write one's number: \[2, 4\]"),
    ],
)
def test_bad_labels(text, message):
    with pytest.raises(ValueError, match=message):
        parse_labels(text, ANIMALS)


@pytest.mark.parametrize(
    ("word", "classes", "nearest"),
    [
        ("zat", ("bat", "cat", "hat", "rat", "elephant"), r"'\wat', '\wat', '\wat'"),
        ("abxy", ("abcd", "zzzz"), "'abcd'"),  # half of it is enough
        ("xyz", ANIMALS, "'tench, Tinca tinca', 'crane'"),  # none: the first and the last
    ],
)
def test_the_nearest_names_are_told(word, classes, nearest):
    with pytest.raises(ValueError, match=rf"Did you mean {nearest}\?$"):
        parse_labels(word, classes)


@pytest.mark.parametrize(("form", "other"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_letters_are_the_same_composed_and_decomposed(form, other):
    """A Mac's file system decomposes the names of folders."""
    names = ["thé", "café", "が", "고양이"]
    classes, words = ([unicodedata.normalize(f, name) for name in names] for f in (form, other))
    assert parse_labels("\n".join(words), classes) == (0, 1, 2, 3)


@given(st.lists(st.integers(0, len(IMAGENET) - 1), min_size=1, max_size=8))
def test_every_imagenet_class_by_number_and_by_its_whole_name(numbers):
    assert parse_labels(", ".join(map(str, numbers)), IMAGENET) == tuple(numbers)
    unique = [i for i in numbers if IMAGENET.count(IMAGENET[i]) == 1]
    if unique:
        assert parse_labels("\n".join(IMAGENET[i] for i in unique), IMAGENET) == tuple(unique)


def test_spelling_decides_between_names_that_differ_in_case():
    assert parse_labels("Cardigan, cardigan", IMAGENET) == (264, 474)
    with pytest.raises(ValueError, match="2 classes are called 'CARDIGAN'"):
        parse_labels("CARDIGAN", IMAGENET)


def test_every_whole_imagenet_name_is_its_class():
    for i, name in enumerate(IMAGENET):
        if IMAGENET.count(name) == 1:
            assert parse_labels(name, IMAGENET) == (i,)


def test_a_class_called_by_a_number_is_that_class():
    assert parse_labels("7", tuple("9876543210")) == (2,)


def test_labels_of_a_batch():
    assert labels_of_batch((4,), 3) == [4, 4, 4]
    assert labels_of_batch((4, 1, 2), 3) == [4, 1, 2]
    with pytest.raises(ValueError, match="2 classes for a batch of 3 images: give one class, or 3"):
        labels_of_batch((4, 1), 3)
