"""A word that an artist chooses from a list: a linked one may be any."""

from collections.abc import Iterable


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raises ValueError for an input that is none of the choices."""
    known = tuple(choices)
    if value not in known:
        raise ValueError(f"{name} = {value!r}: it must be one of {', '.join(known)}.")
