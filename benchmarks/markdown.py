"""Tables of results in Markdown."""

from collections.abc import Callable, Iterable

from .jackknife import HALF

Read = Callable[[str], dict]  # of a benchmark's results, by its name


def table(header: str, rows: Iterable[Iterable[str]]) -> str:
    """header: the cells of the first line, with | between them."""
    cells = header.split("|")
    lines = (f"| {' | '.join(map(str.strip, row))} |".replace("|  |", "| |") for row in (cells, *rows))
    first, *others = lines
    return "\n".join([first, "|" + "---|" * len(cells), *others])


def joined(values: Iterable[float], form: str) -> str:
    return " / ".join(f"{value:{form}}" for value in values)


def with_interval(measured: dict[str, float], form: str = ".3f") -> str:
    """A value and 95 %: so many standard errors, or half of a bootstrap's interval."""
    value = f"{measured['value']:{form}}"
    if "error" in measured:
        return f"{value} ± {HALF * measured['error']:{form}}"
    return f"{value} ± {(measured['high'] - measured['low']) / 2:{form}}" if "high" in measured else value
