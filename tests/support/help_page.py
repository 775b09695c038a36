"""What a help page says of a node's inputs."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "web" / "docs"
ROW = re.compile(r"^\| `(?P<name>[^`]+)` \| .+ \| (?:\*\*(?P<default>[^*]+)\*\*|–)(?:; [^|]+)? \|$")


def section(page: str, heading: str) -> str:
    """What stands under a heading `## …`."""
    return page.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def inputs(page: str) -> dict[str, str | None]:
    """Names and defaults, as they are written, of the table of inputs in its order."""
    lines = [line for line in section(page, "Inputs").splitlines() if line.startswith("| `")]
    rows = [ROW.match(line) for line in lines]
    assert all(rows), f"not a row of inputs: {[line for line, row in zip(lines, rows) if not row]}"
    return {row["name"]: row["default"] for row in rows if row}


def assert_default(written: str | None, options: dict) -> None:
    """That a written default is the schema's; inputs without one, and lists of files, have none."""
    default = options.get("default")
    if default is None:
        assert written is None, f"{written} is written, and there is no default"
    elif isinstance(default, bool):
        assert written == ("on" if default else "off")
    elif isinstance(default, str):
        assert written == (default or "empty")
    else:
        assert written is not None and float(written) == pytest.approx(default)
