"""How sure a measure of drawn pictures is: the delete-a-group jackknife.

Pictures of one caption are alike, and methods that are compared draw the same captions from the same noise. So captions are left
out with all their pictures, a block of them at a time and the same for all methods. For a measure θ, or the difference of two
methods' measures, and θ_g of all pictures but those of block g of G:

    SE² = (G − 1)/G · Σ_g (θ_g − mean θ)²

Nothing is counted twice, as a bootstrap does, which pulls coverage down and Fréchet distances up.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np

K = TypeVar("K", bound=Hashable)
BLOCKS = 40
HALF = 2.02  # standard errors on each side of a value hold 95 %, by Student's t of so many blocks


def kept_rows(groups: np.ndarray, blocks: int = BLOCKS) -> list[np.ndarray]:
    """For each block the numbers of all pictures [N] that are not in it. groups: the same number for pictures that are alike;
    groups go to blocks in turn."""
    _, number = np.unique(groups, return_inverse=True)
    return [np.flatnonzero(number % blocks != block) for block in range(min(blocks, number.max() + 1))]


def standard_error(left_out: np.ndarray) -> float:
    """Of a measure, from its values θ_g [G] without one block each."""
    return float(((len(left_out) - 1) * left_out.var()) ** 0.5)


def compared(
    measures: Mapping[K, Callable[[np.ndarray], dict[str, float]]], groups: np.ndarray, baseline: K
) -> dict[K, dict[str, dict[str, float]]]:
    """For each set of pictures, and each of its measures, the value and standard error, and how much it is above the baseline's,
    with the standard error of that. measures: of the pictures with given numbers. groups: as for `kept_rows`, the same for all
    sets."""
    everything, rows = np.arange(len(groups)), kept_rows(groups)
    values = {key: of(everything) for key, of in measures.items()}
    left_out = {key: [of(kept) for kept in rows] for key, of in measures.items()}

    def row(key: K, name: str) -> dict[str, float]:
        of, of_baseline = (np.array([found[name] for found in left_out[k]]) for k in (key, baseline))
        return {
            "value": values[key][name], "error": standard_error(of),
            "above": values[key][name] - values[baseline][name], "error above": standard_error(of - of_baseline),
        }  # fmt: skip

    return {key: {name: row(key, name) for name in values[key]} for key in measures}
