"""Which step of a schedule an evaluation belongs to, against the definition written out; no ComfyUI."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance_core.sampling_steps import spread_steps, step_at, step_taken

schedules = st.lists(st.floats(0.01, 100), min_size=2, max_size=12, unique=True).map(lambda s: sorted(s, reverse=True))


@given(schedules, st.booleans(), st.data())
def test_the_steps_of_a_schedule_are_numbered(sigmas, rising, data):
    """Sigmas far enough apart to be told from rounding."""
    sigmas = [sigma for i, sigma in enumerate(sigmas) if i == 0 or sigmas[i - 1] > 1.001 * sigma]
    sigmas = sigmas[::-1] if rising else sigmas
    number = data.draw(st.integers(0, len(sigmas) - 1))
    rounded = sigmas[number] * (1 + data.draw(st.floats(-5e-7, 5e-7)))
    assert step_at(rounded, sigmas) == number


@pytest.mark.parametrize(
    ("sigma", "falling", "rising"),
    [(1.0, 0, 3), (0.8, 0, 2), (0.7, 1, 2), (0.2, 2, 0), (0.0, 3, 0), (1.2, 0, 3)],
)
def test_what_lies_between_two_steps_belongs_to_the_first(sigma, falling, rising):
    sigmas = [1.0, 0.7, 0.3, 0.0]
    assert step_at(sigma, sigmas) == falling
    assert step_at(sigma, sigmas[::-1]) == rising


@pytest.mark.parametrize(("sigma", "falling", "rising"), [(1.0, 0, 2), (0.7, 1, 2), (0.3, 2, 1), (0.0, 2, 0)])
def test_the_end_of_a_schedule_is_of_its_last_step(sigma, falling, rising):
    sigmas = [1.0, 0.7, 0.3, 0.0]
    assert step_taken(sigma, sigmas) == falling
    assert step_taken(sigma, sigmas[::-1]) == rising


def test_a_single_step():
    """An evaluation outside of a sampler has a schedule of its own sigma."""
    assert step_at(0.7, [0.7]) == step_taken(0.7, [0.7]) == 0
    assert spread_steps(1, 1) == [0]


@given(st.integers(1, 300), st.integers(2, 20))
def test_spread_steps_have_both_ends_and_even_gaps(steps, most):
    chosen = spread_steps(steps, most)
    assert chosen[0] == 0 and chosen[-1] == steps - 1 and len(chosen) == min(steps, most)
    gaps = {after - before for before, after in zip(chosen, chosen[1:])}
    assert not gaps or min(gaps) >= 1 and max(gaps) - min(gaps) <= 1
