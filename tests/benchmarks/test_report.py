"""The report is the evidence page, whole, in one file."""

import re
from base64 import b64decode
from html.parser import HTMLParser

import pytest

from benchmarks.report import REPORT, SOURCE, render
from benchmarks.results import DOCS


class Page(HTMLParser):
    """What a page consists of, and what it would fetch."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def values(self, name: str) -> list[str]:
        return [value or "" for key, value in self.attributes if key == name]


@pytest.fixture(scope="module")
def text() -> str:
    return SOURCE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def html(text) -> str:
    return render(text, DOCS)


def test_the_report_in_the_repository_is_of_this_page(html):
    assert REPORT.read_text(encoding="utf-8") == html, "python -m benchmarks.report writes it"


def test_it_needs_no_other_file(html):
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert all(value.startswith("data:image/") for value in page.values("src"))
    assert "url(" not in html and "@import" not in html and not page.values("srcset")


def test_all_pictures_and_tables_are_there(text, html):
    page = Page(html)
    pictures = re.findall(r"!\[.*?\]\((.+?)\)", text)
    assert len(pictures) > 3
    shown = [b64decode(value.split(",", 1)[1]) for value in page.values("src")]
    assert shown == [(DOCS / name).read_bytes() for name in pictures]
    assert page.tags.count("table") == len(re.findall(r"^\|[-|]+\|$", text, re.MULTILINE)) > 8
    assert page.tags.count("tr") == len(re.findall(r"^\|(?!-)", text, re.MULTILINE))


def test_links_within_the_page_lead_somewhere(html):
    page = Page(html)
    targets = {value[1:] for value in page.values("href") if value.startswith("#")}
    assert len(targets) > 8 and targets <= set(page.values("id"))


def test_a_picture_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.png"):
        render("# Title\n\n![nothing](missing.png)\n", tmp_path)
