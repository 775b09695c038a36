"""Fills the measured numbers of README, docs and help pages from docs/results: `python -m benchmarks.numbers`.

A table stands between `<!-- numbers: NAME -->` and `<!-- /numbers -->`, NAME a function of tables.py. In a page of another
language `<!-- cells: NAME -->` and `<!-- /cells -->` keep the first line and column of what is there. A number in a sentence:
`<!-- n: evaluations/rows/CFG .1f -->2.0<!-- /n -->`, the name of the results, the keys that lead to it, and its format; not
at the start of a line, where Markdown would take the whole line for HTML. What follows from several numbers is computed from
left to right, by `minus`, `times` and `over`: `<!-- n: NAME/KEY over NAME/KEY minus 1 times 100 .0f -->`. --check changes
nothing and fails where a page differs from the results.
"""

import argparse
import re
import sys
from difflib import ndiff
from functools import cache
from operator import mul, sub, truediv
from pathlib import Path

from tools.environment import REPOSITORY

from . import results
from .markdown import Read
from .tables import TABLES

MARK = re.compile(r"<!-- (?P<kind>numbers|cells|n): (?P<what>.+?) -->(?P<there>[^<]*)<!-- /(?P=kind) -->")
HALF_A_MARK = re.compile(r"<!-- /?(numbers|cells|n)\b.*")
ARITHMETIC = {"minus": sub, "times": mul, "over": truediv}
OPERATION = re.compile(f" ({'|'.join(ARITHMETIC)}) ")
WRITTEN_OUT = re.compile(r"\d+(\.\d+)?")


def pages() -> dict[str, Path]:
    """By their names in the repository."""
    folders = ("docs/*.md", "web/docs/*.md", "web/docs/*/*.md")
    files = [REPOSITORY / "README.md", *(file for folder in folders for file in sorted(REPOSITORY.glob(folder)))]
    return {file.relative_to(REPOSITORY).as_posix(): file for file in files}


def fill(page: str, text: str, read: Read) -> str:
    """text with its numbers from the results. Raises ValueError, naming page and mark, for one that leads nowhere."""
    wanted = (numbers for _, numbers in _compared(page, text, read))
    return MARK.sub(lambda mark: f"<!-- {mark['kind']}: {mark['what']} -->{next(wanted)}<!-- /{mark['kind']} -->", text)


def differences(page: str, text: str, read: Read) -> list[str]:
    """For each mark whose numbers differ from the results: page, line, mark, and the lines that differ."""
    return [
        "\n".join([_place(page, mark), *_changed(mark["there"], wanted)])
        for mark, wanted in _compared(page, text, read)
        if mark["there"] != wanted
    ]


def _changed(there: str, wanted: str) -> list[str]:
    return [line for line in ndiff(there.split("\n"), wanted.split("\n")) if line[0] in "-+"]


def _compared(page: str, text: str, read: Read) -> list[tuple[re.Match, str]]:
    """Each mark, and what should stand in it."""
    if half := HALF_A_MARK.search(MARK.sub("", text)):
        raise ValueError(
            f"{page}: {half[0]} is half a mark; accepted: `<!-- n: … -->…<!-- /n -->`, or both with numbers or cells."
        )
    read = cache(read)  # a page asks hundreds of times for the same file
    return [(mark, _wanted(page, mark, read)) for mark in MARK.finditer(text)]


def _wanted(page: str, mark: re.Match, read: Read) -> str:
    try:
        if mark["kind"] == "numbers":
            return f"\n\n{TABLES[mark['what']](read)}\n\n"
        if mark["kind"] == "cells":
            return f"\n\n{_in_words_of(mark['there'].strip(), TABLES[mark['what']](read))}\n\n"
        expression, form = mark["what"].rsplit(maxsplit=1)
        return f"{computed(expression, read):{form}}"
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError, FileNotFoundError) as error:
        raise ValueError(
            f"{_place(page, mark)}: {error!r}. It takes a table of benchmarks/tables.py, or the keys of a number in "
            "docs/results and its format."
        ) from error


def _in_words_of(there: str, wanted: str) -> str:
    """The table wanted, with the first line and the first column of the table there."""
    (header, line, *rows), (_, _, *found) = there.split("\n"), wanted.split("\n")
    if len(rows) != len(found):
        raise ValueError(f"{len(rows)} rows are there, and the table has {len(found)}")
    labels = (row.split(" | ", 1)[0] for row in rows)
    numbers = (row.split(" | ", 1)[1] for row in found)
    return "\n".join([header, line, *(f"{label} | {cells}" for label, cells in zip(labels, numbers, strict=True))])


def _place(page: str, mark: re.Match) -> str:
    return f"{page}, line {mark.string.count(chr(10), 0, mark.start()) + 1}, `{mark['what']}`"


def computed(expression: str, read: Read) -> float:
    """What an expression such as `results/key over results/other key minus 1` comes to, from left to right."""
    first, *rest = OPERATION.split(expression)
    found = number(first, read)
    for operation, operand in zip(rest[::2], rest[1::2], strict=True):
        found = ARITHMETIC[operation](found, number(operand, read))
    return found


def number(operand: str, read: Read) -> float:
    """The number at `results/key/key`, of a measure its value; or one that is written out."""
    if WRITTEN_OUT.fullmatch(operand):
        return float(operand)
    name, *keys = operand.split("/")
    found = read(name)
    for key in keys:
        found = found[int(key) if isinstance(found, list) else key]
    return found["value"] if isinstance(found, dict) else found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check, wrong = parser.parse_args().check, []
    for name, file in pages().items():
        text = file.read_text(encoding="utf-8")
        if check:
            wrong += differences(name, text, results.read)
        else:
            file.write_text(fill(name, text, results.read), encoding="utf-8")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
