"""A table that grows: methods of a new run beside those of an earlier one, where both are made alike."""

from collections.abc import Iterable

BY_METHOD = ("tried", "settings", "rows", "fronts")
ORIGIN = ("command", "date", "versions")


def check_alike(earlier: dict, terms: dict) -> None:
    """Raises ValueError for a table that was made on other terms: its rows cannot stand beside new ones."""
    others = [f"{name}: {earlier.get(name)}, now {now}" for name, now in terms.items() if earlier.get(name) != now]
    if others:
        raise ValueError(f"The table that is there was made otherwise ({'; '.join(others)}): leave --join out.")


def joined(earlier: dict, new: dict, order: Iterable[str]) -> dict:
    """The earlier table with the new one's further methods, in the given order."""
    order = [*order]
    grown = {part: _in_order(new[part] | earlier[part], order) for part in BY_METHOD}
    runs = [*earlier.get("earlier runs", []), {name: earlier[name] for name in ORIGIN}]
    return {**new, **grown, "earlier runs": runs}


def _in_order(found: dict[str, dict], order: list[str]) -> dict[str, dict]:
    return {name: found[name] for name in sorted(found, key=order.index)}
