"""README, docs and help pages: one order of headings, pictures that are there and small, links that lead somewhere."""

import re
from pathlib import Path

import pytest

from tools.picture_rows import LARGEST

REPOSITORY = Path(__file__).resolve().parents[1]
HELP = REPOSITORY / "web" / "docs"
HELP_PAGES = sorted(HELP.glob("*.md"))
PAGES = [*sorted(REPOSITORY.glob("*.md")), *sorted(REPOSITORY.glob("docs/*.md"))]
ORDER = ["When to use", "Wiring", "Inputs", "Outputs", "Cost", "Pitfalls", "Source"]
OPTIONAL = {"Outputs"}
WORDS = 1100  # of the longest help page; longer text belongs into docs
PICTURE = re.compile(r"!\[(?P<text>[^\]]*)\]\((?P<target>[^)]+)\)")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
ELSEWHERE = ("https://", "http://")


def name(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


@pytest.mark.parametrize("page", HELP_PAGES, ids=name)
def test_a_help_page_has_the_same_headings_as_the_others(page):
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert found == [heading for heading in ORDER if heading not in OPTIONAL or heading in found]
    assert re.match(r"# .+\n\n.+\n", text) and len(re.sub("<!--.*?-->", "", text).split()) <= WORDS


@pytest.mark.parametrize("page", HELP_PAGES, ids=name)
def test_a_help_page_shows_what_the_help_panel_can_show(page):
    """ComfyUI resolves a picture from web/docs, and no link."""
    text = page.read_text(encoding="utf-8")
    for picture in PICTURE.finditer(text):
        assert picture["text"] and (HELP / picture["target"]).is_file(), picture[0]
    assert all(link["target"].startswith(ELSEWHERE) for link in LINK.finditer(text))


def test_pictures_of_help_pages_are_small_and_shown():
    shown = {picture["target"] for page in HELP_PAGES for picture in PICTURE.finditer(page.read_text(encoding="utf-8"))}
    there = {path.relative_to(HELP).as_posix(): path.stat().st_size for path in HELP.glob("images/*")}
    assert shown == there.keys()
    assert max(there.values()) <= LARGEST


def test_tests_that_pages_speak_of_are_there():
    there = {
        match
        for file in REPOSITORY.glob("tests/**/test_*.py")
        for match in re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))
    }
    there |= {file.stem for file in REPOSITORY.glob("tests/**/test_*.py")}
    for page in PAGES:
        spoken_of = re.findall(r"`(test_\w+)(?:\.py)?`", page.read_text(encoding="utf-8"))
        assert not {*spoken_of} - there, name(page)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_of_pages_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for match in [*LINK.finditer(text), *PICTURE.finditer(text)]:
        file, _, heading = match["target"].partition("#")
        if file.startswith(ELSEWHERE):
            continue
        target = page.parent / file if file else page
        assert target.exists(), f"{name(page)}: {match[0]}"
        assert not heading or heading in anchors(target), f"{name(page)}: {match[0]}"


def anchors(page: Path) -> set[str]:
    """Of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_pictures_of_the_readme_are_small():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    pictures = {picture["target"] for picture in PICTURE.finditer(text)}
    assert 3 <= len(pictures) and sum((REPOSITORY / picture).stat().st_size for picture in pictures) < 1_000_000


def test_every_picture_of_the_docs_is_shown():
    """A page that loses one would keep its file, and nobody would see either."""
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    shown = {Path(picture["target"]).name for text in texts for picture in PICTURE.finditer(text)}
    there = {path.name for path in (REPOSITORY / "docs").glob("*.png")}
    assert len(there) > 10 and there <= shown
