"""A table that grows: methods of a new run beside those of an earlier one, where both are made alike."""

from collections.abc import Iterable

BY_METHOD = ("tried", "settings", "rows", "fronts")
SAME = 0.5  # standard errors; other processors round otherwise, and a picture may be read otherwise for that
ORIGIN = ("command", "date", "commit", "versions")


def check_alike(earlier: dict | None, terms: dict, title: str) -> None:
    """Raises ValueError for a table that is not there, or was made on other terms: its rows cannot stand beside new ones.
    title: the table's."""
    if earlier is None:
        raise ValueError(f"--join: there is no table '{title}' with so many --steps yet. Without --join it is made.")
    others = [f"{name}: {earlier.get(name)}, now {now}" for name, now in terms.items() if earlier.get(name) != now]
    if others:
        raise ValueError(
            f"--join: the table '{title}' was made otherwise ({'; '.join(others)}). Ask for what it was made with, or make it anew "
            "with all its methods, without --join."
        )


def joined(earlier: dict, new: dict, order: Iterable[str]) -> dict:
    """The earlier table with the new one's further methods, and further measures of methods, in the given order.

    Raises ValueError where what both have measured, the baseline at least, is another in the new: by versions or by code.
    """
    for name in earlier["rows"].keys() & new["rows"].keys():
        check_same(name, earlier["rows"][name], new["rows"][name])
    order = [*order]
    grown = {part: _in_order(new[part] | earlier[part], order) for part in BY_METHOD}
    grown["rows"] = {name: new["rows"].get(name, {}) | earlier["rows"].get(name, {}) for name in grown["rows"]}
    return {**new, **grown, "earlier runs": earlier_runs(earlier)}


def earlier_runs(earlier: dict) -> list[dict]:
    """Where what stands beside a new run's rows comes from, the oldest first."""
    return [*earlier.get("earlier runs", []), {name: earlier[name] for name in ORIGIN if name in earlier}]


def check_same(name: str, before: dict, now: dict) -> None:
    """Raises ValueError for a row that was drawn again and has other measures. name: the row's."""
    moved = [m for m in before if abs(now[m]["value"] - before[m]["value"]) > SAME * before[m]["error"]]
    if moved:
        raise ValueError(
            f"--join: {name} is measured otherwise than in the results that are there ({', '.join(moved)}): by other versions, or "
            "by other code. Make them anew, without --join."
        )


def _in_order(found: dict[str, dict], order: list[str]) -> dict[str, dict]:
    """Methods that are no longer compared come last."""
    return {name: found[name] for name in sorted(found, key=lambda n: order.index(n) if n in order else len(order))}
