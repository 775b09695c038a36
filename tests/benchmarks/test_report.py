"""The evidence as one page that needs nothing beside it."""

import re

import pytest

from benchmarks.report import PAGE, anchor, render


def test_everything_is_inside():
    text, page = PAGE.read_text(), render(PAGE)
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == len(re.findall(r"!\[", text)) and all(
        s.startswith("data:image/png;base64,") for s in sources
    )
    assert page.count("<table>") == len(re.findall(r"^\|[ -]*---", text, re.MULTILINE))
    assert not re.findall(r"<(?:script|link|iframe)", page)


def test_links_within_the_page_arrive():
    page = render(PAGE)
    assert {*re.findall(r'href="#([^"]*)"', page)} <= {*re.findall(r'id="([^"]*)"', page)}


def test_anchors_are_githubs():
    assert anchor("The papers' experiment") == "the-papers-experiment"


def test_a_missing_picture_is_an_error(tmp_path):
    (tmp_path / "page.md").write_text("# Page\n\n![A picture](nowhere.png)\n")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        render(tmp_path / "page.md")
