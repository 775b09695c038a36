"""Standard errors by leaving captions out, against closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.jackknife import compared, kept_rows, standard_error


@given(st.lists(st.floats(-100, 100), min_size=3, max_size=30))
def test_of_a_mean_of_single_values_it_is_the_standard_error_of_the_mean(values):
    values = np.array(values)
    rows = kept_rows(np.arange(len(values)), blocks=len(values))
    found = standard_error(np.array([values[kept].mean() for kept in rows]))
    assert found == pytest.approx(values.std(ddof=1) / len(values) ** 0.5, abs=1e-9)


def test_values_that_are_the_same_within_a_group_count_once():
    """Copies of each value make no mean surer."""
    values, groups = np.random.default_rng(0).normal(size=40), np.arange(40)
    once, thrice = (
        standard_error(np.array([v[kept].mean() for kept in kept_rows(g)]))
        for v, g in ((values, groups), (values.repeat(3), groups.repeat(3)))
    )
    assert thrice == pytest.approx(once)
    assert once == pytest.approx(values.std(ddof=1) / 40**0.5)


@given(
    st.lists(st.integers(0, 100), min_size=2, max_size=200).filter(lambda groups: len({*groups}) > 1),
    st.integers(2, 40),
)
def test_a_group_is_left_out_as_a_whole_and_once(groups, blocks):
    groups = np.array(groups)
    left_out = [np.setdiff1d(np.arange(len(groups)), kept) for kept in kept_rows(groups, blocks)]
    assert sorted(np.concatenate(left_out)) == [*range(len(groups))]
    for rows in left_out:
        assert not {*groups[rows]} & {*np.delete(groups, rows)}


def test_a_difference_of_means_has_the_standard_error_of_paired_differences():
    random = np.random.default_rng(1)
    values, shift = random.normal(size=40), random.normal(size=40)
    sets = {"plain": values, "shifted": values + shift}
    measures = {name: lambda rows, of=of: {"mean": of[rows].mean()} for name, of in sets.items()}
    found = compared(measures, np.arange(40), "plain")
    assert found["plain"]["mean"]["above"] == found["plain"]["mean"]["error above"] == 0
    shifted = found["shifted"]["mean"]
    assert shifted["above"] == pytest.approx(shift.mean())
    assert shifted["error above"] == pytest.approx(shift.std(ddof=1) / 40**0.5)
    assert shifted["error"] == pytest.approx((values + shift).std(ddof=1) / 40**0.5)
