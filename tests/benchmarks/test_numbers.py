"""The numbers that pages quote are those of the results."""

import re
from copy import deepcopy

import pytest

from benchmarks import results
from benchmarks.numbers import MARK, differences, fill, pages
from benchmarks.tables import TABLES, class_conditional

UNMEASURED: set[str] = set()


def texts() -> dict[str, str]:
    return {name: file.read_text(encoding="utf-8") for name, file in pages().items()}


def test_pages_say_what_the_results_say():
    wrong = [line for name, text in texts().items() for line in differences(name, text, results.read)]
    assert not wrong, "python -m benchmarks.numbers fills them in:\n" + "\n".join(wrong)


def test_every_table_has_its_place():
    marks = [mark for text in texts().values() for mark in MARK.finditer(text)]
    placed = {mark["what"] for mark in marks if mark["kind"] == "numbers"}
    assert placed | UNMEASURED == TABLES.keys() and len(marks) > 50


@pytest.mark.parametrize(("name", "keys", "page"), [
    ("evaluations", ("rows", "ERG of its own at cfg 1"), "README.md"),
    ("evaluations", ("rows", "CFG + ERG of its own, middle half"), "web/docs/EntropyGuidanceERG.md"),
    ("evaluations", ("rows", "CFG + ERG of its own, middle half"), "web/docs/EntropyGuidanceERG/zh.md"),
    ("flatness", ("rows", "demo model, none, CFG", "exact"), "docs/evidence.md"),
    ("calibration", ("rows", "CE", "ece", "deviation"), "docs/evidence.md"),
])  # fmt: skip
def test_a_changed_result_is_found_and_filled_in(name, keys, page):
    changed = deepcopy(results.read(name))
    *way, last = keys
    place = changed
    for key in way:
        place = place[key]
    place[last] += 0.1

    def read(other: str) -> dict:
        return changed if other == name else results.read(other)

    text = texts()[page]
    wrong = differences(page, text, read)
    assert wrong and all(re.match(rf"{page}, line \d+, `", line) for line in wrong)
    filled = fill(page, text, read)
    assert not differences(page, filled, read)
    assert len(differences(page, filled, results.read)) == len(wrong)


def test_a_changed_page_is_found_and_filled_in():
    text = texts()["README.md"]
    number = "cfg 1 .1f -->1.6<!--"
    assert number in text
    changed = text.replace(number, number.replace("1.6", "1.4"))
    (line,) = differences("README.md", changed, results.read)
    assert line.splitlines()[1:] == ["- 1.4", "+ 1.6"]
    assert fill("README.md", changed, results.read) == text


@pytest.mark.parametrize(("text", "said"), [
    ("So <!-- n: evaluations/rows/cfg .1f -->2.0<!-- /n -->", "page.md, line 2, `evaluations/rows/cfg .1f`: KeyError('cfg')"),
    ("So <!-- n: evaluations/rows/CFG .1q -->2.0<!-- /n -->", "line 2"),
    ("So <!-- n: evaluations/rows/CFG -->2.0<!-- /n -->", "line 2"),
    ("So <!-- n: unheard_of/rows/CFG .1f -->2.0<!-- /n -->", "`python -m benchmarks.unheard_of` writes it"),
    ("So <!-- n: evaluations/rows/CFG over evaluations/rows/cfg .1f -->1.0<!-- /n -->", "KeyError('cfg')"),
    ("So <!-- n: evaluations/rows/CFG over 0 .1f -->2.0<!-- /n -->", "ZeroDivisionError"),
    ("So <!-- n: evaluations/rows/CFG by 2 .1f -->2.0<!-- /n -->", "KeyError('CFG by 2')"),
    ("So <!-- n: evaluations/date minus 1 s -->2<!-- /n -->", "TypeError"),
    ("<!-- numbers: unheard_of -->\n\n<!-- /numbers -->", "tables.py"),
    ("<!-- cells: evaluations_of_modes -->\n\n| |\n|---|\n| CFG |\n\n<!-- /cells -->", "1 rows are there, and the table has 4"),
    ("So <!-- n: evaluations/rows/CFG .1f -->2.0", "half a mark"),
    ("So 2.0<!-- /n -->", "half a mark"),
])  # fmt: skip
def test_a_mark_that_leads_nowhere_is_named(text, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        fill("page.md", f"# Title\n{text}\n", results.read)


@pytest.mark.parametrize(("expression", "shown"), [
    ("a/rows/1/time minus a/rows/0 .2f", "1.50"),
    ("a/rows/0 minus a/rows/1/time .2f", "-1.50"),
    ("a/rows/1 over a/rows/0 .1f", "5.0"),
    ("a/rows/1 over a/rows/0 minus 1 times 100 .0f", "400"),
    ("a/rows/1/time/low times 2 .1f", "2.0"),
    ("a/rows/0 minus 0.5 over a/rows/0 .1f", "0.0"),
    ("1 minus a/rows/0 .0%", "50%"),
    ("a/pictures ,d", "2,016"),
])  # fmt: skip
def test_arithmetic_goes_from_left_to_right(expression, shown):
    found = {"rows": [0.5, {"value": 2.5, "time": {"value": 2.0, "low": 1.0}}], "pictures": 2016}
    text = "So <!-- n: {} -->{}<!-- /n -->".format

    def read(name: str) -> dict:
        return {"a": found}[name]

    assert fill("page.md", text(expression, ""), read) == text(expression, shown)
    assert not differences("page.md", text(expression, shown), read)


def test_the_class_conditional_table():
    measure = {"value": 0.5, "low": 0.4, "high": 0.7}
    found = {
        "rows": {"ma2023": {"accuracy": measure, "Fréchet": measure}, "real pictures": {"accuracy": measure, "Fréchet": measure}},
        "fewer pictures": {"ma2023": 1200},
        "Fréchet, relative": {"ma2023": {"ours": 1.0, "paper": None}},
        "tried": {"ma2023": [{"setting": {"scale": 4.0, "cfg": 1.0}}, {"setting": {"scale": 2.0, "cfg": 1.0}}]},
    }  # fmt: skip
    assert class_conditional({"class_conditional": found}.__getitem__).splitlines() == [
        "| | scale | accuracy | Fréchet | Fréchet / baseline | in the paper |",
        "|---|---|---|---|---|---|",
        "| ma2023 (1,200 pictures) | 4 | 0.500 ± 0.150 | 0.500 ± 0.150 | 1.000 | – |",
        "| real pictures | – | 0.500 ± 0.150 | 0.500 ± 0.150 | – | – |",
    ]
