"""Pages say what was measured: places in Markdown against the results files."""

import pytest

from benchmarks import numbers
from tools.environment import REPOSITORY

PAGES = [REPOSITORY / page for page in numbers.PAGES]


def test_pages_say_what_was_measured():
    assert numbers.stale(PAGES) == []


def test_the_evidence_has_measured_places():
    assert list(numbers.PLACE.finditer((REPOSITORY / "docs" / "evidence.md").read_text()))


def test_another_number_is_found(tmp_path):
    text = (REPOSITORY / "docs" / "evidence.md").read_text()
    place = next(numbers.PLACE.finditer(text))
    digit = next(i for i in range(place.start(), place.end()) if text[i].isdigit())
    page = tmp_path / "page.md"
    page.write_text(f"{text[:digit]}{(int(text[digit]) + 1) % 10}{text[digit + 1 :]}")
    assert numbers.stale([page]) == [f"{page}: {place['name']}"]
    page.write_text(numbers.filled(page.read_text()))
    assert page.read_text() == text


def test_an_unknown_name_is_an_error():
    with pytest.raises(KeyError, match="nothing"):
        numbers.filled("<!-- numbers: nothing -->\n<!-- /numbers -->")


def test_a_table():
    assert numbers.table(["", "a"], [["x", "1"]]) == "|  | a |\n| --- | --- |\n| x | 1 |\n"


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ({"value": 0.5}, "0.500"),
        ({"value": 0.5, "low": 0.4, "high": 0.6}, "0.500 ± 0.100"),
        ({"value": 12.3456}, "12.35"),
    ],
)
def test_a_number_with_its_interval(found, text):
    assert numbers.number(found) == text
