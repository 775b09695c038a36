"""The range of a number that an artist gives: a linked one may be anything, not what its widget allows alone."""

import math

# Far beyond any use of a strength or temperature, and far from where products of them leave single precision.
LARGEST = 1e6


def check_number(name: str, value: float, lowest: float = -LARGEST, highest: float = LARGEST) -> None:
    """Raises ValueError for an input that is not finite, too low or too high."""
    if value > highest and value != math.inf:
        raise ValueError(f"{name} = {value}: it must be a finite number of {highest} or less.")
    if not lowest <= value < math.inf:
        limit = "" if lowest == -LARGEST else f" of {lowest:g} or more"
        raise ValueError(f"{name} = {value}: it must be a finite number{limit}.")
