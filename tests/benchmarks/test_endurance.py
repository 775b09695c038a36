"""The trend of a series: what grows is found, and what only moves is not."""

import numpy as np
import pytest

from benchmarks.endurance.__main__ import MEASURES, RSS, growing
from benchmarks.endurance.trend import trend


@pytest.mark.parametrize("seed", range(5))
def test_a_leak_below_the_noise_of_a_point_is_found(seed):
    noise = np.random.default_rng(seed).normal(0, 1, 50)
    grown = trend([*(noise + 0.2 * np.arange(50))])
    assert grown.grows and abs(grown.slope - 0.2) < 0.05  # five deviations of a slope of 50 such points
    assert grown.times(10) == {"value": grown.slope * 10, "low": grown.low * 10, "high": grown.high * 10}


def test_noise_is_no_growth():
    """Of a hundred series without a trend about two seem to grow."""
    random = np.random.default_rng(0)
    assert sum(trend([*random.normal(5, 1, 50)]).grows for _ in range(100)) <= 6


def test_what_is_constant_does_not_grow():
    assert trend([3, 3, 3, 3]).times(1) == {"value": 0, "low": 0, "high": 0}


def test_too_few_values():
    with pytest.raises(ValueError, match="2 values: a trend needs at least 3"):
        trend([1, 2])


def test_what_grows_after_the_first_cycles_is_named():
    steady = dict.fromkeys(MEASURES, 7)
    points = [steady | {"files": min(cycle, 3), "threads": cycle} for cycle in range(12)]
    assert growing(points, [steady] * 12, 3) == ["threads"]


@pytest.mark.parametrize(("alone", "found"), [(1.0, []), (0.5, [RSS]), (0.0, [RSS])])
def test_memory_may_grow_as_with_comfyui_alone(alone, found):
    points, others = (
        [dict.fromkeys(MEASURES, 7) | {RSS: rate * cycle} for cycle in range(12)] for rate in (1.0, alone)
    )
    assert growing(points, others, 3) == found
