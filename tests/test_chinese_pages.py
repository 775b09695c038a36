"""The Chinese help pages say what the English ones say, in the words of locales/zh; they are compared line by line."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from help_page import FOLDER, section
from markdown_it import MarkdownIt

from tools.locales import LOCALES

ENGLISH = sorted(FOLDER.glob("*.md"))
HEADINGS = {
    "When to use": "何时使用", "Wiring": "连接方式", "Inputs": "输入", "Outputs": "输出", "Cost": "开销",
    "Pitfalls": "注意事项", "Source": "来源",
}  # fmt: skip
KIND = re.compile(r"^(?:#+ |- |\d\. |\||> |!\[|\*(?!\*))")
KEPT = re.compile(r"<!-- n: .+? -->|`[^`]+`|\]\([^)]+\)|\d+(?:[.,]\d+)*")
LINK = re.compile(r"\[[^\]]*\]\([^)]+\)")
EN, ZH = (json.loads((LOCALES / name / "nodeDefs.json").read_text(encoding="utf-8")) for name in ("en", "zh"))

each_page = pytest.mark.parametrize("page", ENGLISH, ids=lambda page: page.stem)


def chinese(page: Path) -> Path:
    """Where ComfyUI's frontend looks for it."""
    return page.with_suffix("") / "zh.md"


def lines(page: Path) -> list[str]:
    return page.read_text(encoding="utf-8").splitlines()


def kept(line: str) -> tuple:
    """What a translation of a line keeps: its kind, the count of its cells, code, numbers, and where links lead."""
    return KIND.findall(line), line.count("|"), Counter(KEPT.findall(line))


def names(line: str) -> set[str]:
    """The nodes that a line names, in short or in full, titles of papers left out."""
    text = LINK.sub("", line)
    return {node for node, strings in EN.items() if strings["display_name"].partition(" (")[0] in text}


def test_every_help_page_has_a_chinese_one():
    assert sorted(FOLDER.glob("*/*.md")) == [chinese(page) for page in ENGLISH]


@each_page
def test_headings_are_those_of_the_english_page(page):
    title, *headings = (line.lstrip("# ") for line in lines(page) if line.startswith("#"))
    assert title == EN[page.stem]["display_name"]
    translated = [line.lstrip("# ") for line in lines(chinese(page)) if line.startswith("#")]
    assert translated == [ZH[page.stem]["display_name"], *map(HEADINGS.__getitem__, headings)]


@each_page
def test_code_numbers_links_and_nodes_are_those_of_the_english_page(page):
    for english, translated in zip(lines(page), lines(chinese(page)), strict=True):
        assert kept(translated) == kept(english), translated
        for node in names(english):
            assert ZH[node]["display_name"].partition("（")[0] in translated, translated


@each_page
def test_inputs_are_called_as_on_the_node(page):
    rows = [line for line in section(chinese(page).read_text(encoding="utf-8"), "输入").splitlines() if "| `" in line]
    called = {name: strings["name"] for name, strings in ZH[page.stem].get("inputs", {}).items()}
    first = {row.split(" | ")[0].removeprefix("| ") for row in rows}
    assert first == {f"`{key}`" if key == name else f"`{key}` {name}" for key, name in called.items()}


@each_page
def test_emphasis_shows_as_emphasis(page):
    """Markdown leaves asterisks standing between a character and punctuation that follows no space."""
    shown = MarkdownIt().enable("table").render(chinese(page).read_text(encoding="utf-8"))
    assert "<strong>" in shown and "*" not in re.sub("<code>.*?</code>", "", shown)
