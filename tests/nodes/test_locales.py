"""The strings of locales/: the English are those of the schemas, and a translation says everything that they say."""

import json
import re
from collections import Counter
from functools import cache

import pytest

from benchmarks.in_process import nodes
from tools.locales import LOCALES, as_json, english

# What the frontend offers besides English; test_languages.py asks it.
LANGUAGES = ("ar", "es", "fa", "fr", "he", "ja", "ko", "pt-BR", "ru", "tr", "zh", "zh-TW")
# What a model or an input reads in English whatever the language of the page.
READ_IN_ENGLISH = (
    "a large red circle left of a blue square on a white background",
    "red, green, blue, yellow, purple, orange", "circle, square, triangle", "input, middle, output",
)  # fmt: skip
QUOTED = re.compile(r"(?<!\w)'([^']+)'")
WORDS = re.compile(r"-?[A-Za-z0-9Ͱ-Ͽ²×][\w./%-]*", re.ASCII)
IDENTIFIER = re.compile(r"\d|_|[A-Z].*[A-Z]|.[./%].|[Ͱ-Ͽ]")
COUNTED = {"1", "2", "3"}  # some languages write them where English has a word
MESSAGE_SYNTAX = re.compile(r"[{}@|]")  # of the frontend's messages


@pytest.fixture(scope="module")
def classes(node):
    """The pack's nodes, by their ids."""
    return {name: c for name, c in nodes.NODE_CLASS_MAPPINGS.items() if name.startswith("EntropyGuidance")}


@cache
def read(language: str) -> dict[str, dict]:
    """The files of a language, by their names."""
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in (LOCALES / language).iterdir()}


def flat(strings: dict, *path: str) -> dict[tuple[str, ...], str]:
    """The strings of a tree, by the keys that lead to each."""
    found = {}
    for key, value in strings.items():
        found |= flat(value, *path, key) if isinstance(value, dict) else {(*path, key): value}
    return found


def pairs(language: str) -> list[tuple[tuple[str, ...], str, str]]:
    """The keys that lead to each string, its English and its translation."""
    translated = flat(read(language))
    return [(path, text, translated[path]) for path, text in flat(read("en")).items()]


def test_the_english_is_that_of_the_schemas(classes):
    for name, strings in english(classes.values()).items():
        written = (LOCALES / "en" / name).read_text(encoding="utf-8")
        assert written == as_json(strings), "a string has changed: python -m tools.locales, and translate it"


def test_no_language_is_left_over():
    assert {path.name for path in LOCALES.iterdir()} == {"en", *LANGUAGES}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_the_keys_of_the_schemas(language):
    assert flat(read(language)).keys() == flat(read("en")).keys()


@pytest.mark.parametrize("language", LANGUAGES)
def test_everything_is_translated(language):
    for path, text, translation in pairs(language):
        assert translation.strip(), path
        assert not MESSAGE_SYNTAX.search(translation), path
        assert translation != text or len(text.split()) <= 3, path


@pytest.mark.parametrize("language", LANGUAGES)
def test_one_string_has_one_translation(language):
    by_text: dict[str, set] = {}
    for path, text, translation in pairs(language):
        by_text.setdefault(f"{path[-1]}: {text}", set()).add(translation)
    assert not {text: found for text, found in by_text.items() if len(found) > 1}


@pytest.mark.parametrize("language", LANGUAGES)
def test_numbers_symbols_and_identifiers_survive(language, classes):
    """In a description or tooltip; names of our own nodes and inputs are those of the language."""
    own_titles = titles(language)
    for path, text, translation in pairs(language):
        if path[-1] not in ("description", "tooltip"):
            continue
        ours = own_titles | labels_in(path, language)
        for name in sorted(ours, key=len, reverse=True):
            if said := len(re.findall(rf"(?<!\w){re.escape(name)}(?!\w)", text)):
                assert translation.count(ours[name]) >= said, (path, name)
                text, translation = (
                    re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", " ", text),
                    translation.replace(ours[name], " "),
                )
        assert not identifiers(text) - identifiers(translation), path
        assert (identifiers(translation) - identifiers(text)).keys() <= COUNTED, path
        for said in [*QUOTED.findall(text), *(words for words in READ_IN_ENGLISH if words in text)]:
            assert said in translation, path


@pytest.mark.parametrize("language", LANGUAGES)
def test_options_are_called_what_the_combo_shows(language, classes):
    for path, text, translation in pairs(language):
        if path[-1] != "tooltip" or path[-3] != "inputs":
            continue
        for option in options_of(classes[path[1]], path[-2]):
            if re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text):
                assert option in translation, (path, option)


def identifiers(text: str) -> Counter:
    """Numbers, symbols, abbreviations and names with a dot, a dash below or a capital inside."""
    words = (word.rstrip("./-").removesuffix("s") for word in WORDS.findall(text))
    return Counter(word for word in words if IDENTIFIER.search(word))


@cache
def titles(language: str) -> dict[str, str]:
    """What our nodes are called in a language, by what they are called in English, in full and without the brackets behind."""
    found = {text: translation for path, text, translation in pairs(language) if path[-1] == "display_name"}
    return found | {short(text): short(translation) for text, translation in found.items()}


def short(title: str) -> str:
    return re.split(r" ?[(（]", title)[0]


def labels_in(path: tuple[str, ...], language: str) -> dict[str, str]:
    """What the inputs of a string's node are called in a language, but for those whose name is a word of any sentence."""
    file, node = path[:2]
    inputs = read(language)[file][node].get("inputs", {})
    return {
        name: strings["name"]
        for name, strings in inputs.items()
        if path[-2] != name and (re.search(r"[_\d]", name) or name in ("normalize", "percents", "scale", "temperature"))
    }


def options_of(node_class, input_id: str) -> list[str]:
    (the_input,) = [i for i in node_class.GET_SCHEMA().inputs if i.id == input_id]
    return getattr(the_input, "options", None) or []
