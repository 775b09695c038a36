"""Puts measured numbers into the pages: `python -m benchmarks.numbers`.

What stands between `<!-- numbers: NAME -->` and `<!-- /numbers -->` in a Markdown file is written from docs/results by the
function of that name below, so that pages cannot drift from what was measured. `--check` changes nothing and fails where a
page says something else.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from tools.environment import REPOSITORY

RESULTS = REPOSITORY / "docs" / "results"
PAGES = ("README.md", "docs/evidence.md")
PLACE = re.compile(r"(<!-- numbers: (?P<name>\S+) -->\n).*?(<!-- /numbers -->)", re.DOTALL)
MAIN = ("exact", "relation", "clean", "density", "coverage", "precision", "recall", "Fréchet", "diversity", "clipped", "off palette")  # fmt: skip


@cache
def results(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text())


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """In Markdown."""
    lines = [list(heads), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def number(found: dict[str, float]) -> str:
    """A value, with half of its interval where there is one."""
    digits = 3 if found["value"] < 1.5 else 2
    spread = f" ± {(found['high'] - found['low']) / 2:.{digits}f}" if "low" in found else ""
    return f"{found['value']:.{digits}f}{spread}"


def class_table(found: dict) -> str:
    """Both papers' rows on the class-conditional demo model, from what benchmarks.class_conditional found."""
    measures = ("accuracy", "Fréchet", "joint", "precision", "recall", "density", "coverage")
    rows = found["rows"]

    def cells(name: str, row: dict):
        base, paper = found["bases"].get(name), found["paper"].get(name)
        ratio = f"{row['Fréchet']['value'] / rows[base]['Fréchet']['value']:.3f}" if base else "–"
        return [name, _scale(found, name), *(number(row[m]) for m in measures), ratio, f"{paper:.3f}" if paper else "–"]

    return f"{found['pictures']:,} pictures a row:\n\n" + table(
        ["", "scale", *measures, "Fréchet, ratio", "paper's"], (cells(name, row) for name, row in rows.items())
    )


def _scale(found: dict, name: str) -> str:
    if name not in found["tried"]:
        return "–"
    setting = found["tried"][name][0]["setting"]
    return f"{setting['scale'] or setting['cfg']:g}"


def text_to_image(kind: str, regime: str) -> str:
    """One table of benchmarks.text_to_image."""
    found = results("text_to_image")
    tables = found["regimes"][regime][kind]
    measures = [m for m in MAIN if kind == "prompted" or m not in ("exact", "relation", "diversity")]
    rows = {**tables["rows"], **({"real pictures": found["real pictures"]} if kind == "prompted" else {})}
    return table(
        ["", "cfg", *measures],
        (
            [
                name,
                f"{tables['settings'][name]['cfg']:.2f}" if name in tables["settings"] else "–",
                *(number(row[m]) for m in measures),
            ]
            for name, row in rows.items()
        ),
    )


WRITTEN: dict[str, Callable[[], str]] = {
    "class_conditional": lambda: class_table(results("class_conditional")),
    "text_to_image": lambda: text_to_image("prompted", "demo model"),
    "unconditional": lambda: text_to_image("unconditional", "demo model"),
}


def filled(page: str) -> str:
    """A page with its numbers. Raises KeyError where a place has a name that nothing is written for."""
    return PLACE.sub(lambda place: f"{place[1]}\n{WRITTEN[place['name']]()}\n{place[3]}", page)


def stale(pages: Iterable[Path]) -> list[str]:
    """The pages, and the names of their places, that say something else than the results."""
    found = []
    for page in pages:
        now, then = (
            {place["name"]: place[0] for place in PLACE.finditer(text)}
            for text in (page.read_text(), filled(page.read_text()))
        )
        found += [f"{page}: {name}" for name in now if now[name] != then[name]]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    pages = [REPOSITORY / page for page in PAGES]
    if parser.parse_args().check:
        if places := stale(pages):
            sys.exit("Not as measured; run 'python -m benchmarks.numbers':\n" + "\n".join(places))
        return
    for page in pages:
        page.write_text(filled(page.read_text()))


if __name__ == "__main__":
    main()
