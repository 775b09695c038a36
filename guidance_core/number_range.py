"""The range of a number that an artist gives: a linked one may be anything, not what its widget allows alone."""

import math

# Far beyond any use of a strength or temperature, and far from where products of them leave single precision.
LARGEST = 1_000_000


def check_number(name: str, value: float, lowest: float = -LARGEST, highest: float = LARGEST) -> None:
    """Raises ValueError for an input that is not finite, too low or too high."""
    if lowest <= value <= highest:
        return
    finite = -math.inf < value < math.inf
    if finite and value > highest:
        limit = f" of {highest} or less"
    else:
        limit = f" of {lowest:g} or more" if finite or lowest > -LARGEST else ""
    raise ValueError(f"{name} = {value}: it must be a finite number{limit}.")


def check_share(name: str, value: float) -> None:
    """Raises ValueError for an input that is no share of a whole."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} = {value}: it must lie between 0 and 1.")


def whole_number(name: str, value: float, lowest: int, highest: int = LARGEST) -> int:
    """An input that is a whole number of this range, as 2.0 is; raises ValueError for any other."""
    if lowest <= value <= highest and value == int(value):
        return int(value)
    raise ValueError(f"{name} = {value}: it must be a whole number of {lowest} or more, and at most {highest}.")
