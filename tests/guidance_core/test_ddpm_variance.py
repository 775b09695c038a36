"""The variance of DDPM's steps against the data for which each bound is exact; no ComfyUI."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guidance_core.ddpm_sine import ddpm_schedule
from guidance_core.ddpm_variance import learned_log_variance, step_variances, variance_bounds

# ᾱ of steps from noise to the clean picture, or to some noise.
SCHEDULES = st.lists(st.floats(1e-9, 0.999), min_size=1, max_size=20, unique=True).flatmap(
    lambda kept: st.sampled_from([sorted(kept) + [1.0], sorted(kept) + [0.9995]])
)


def exact(kept) -> tuple[torch.Tensor, torch.Tensor]:
    """ᾱ and 1 − ᾱ."""
    kept = torch.tensor(kept, dtype=torch.float64)
    return kept, 1 - kept


@given(SCHEDULES, st.floats(-1, 1))
def test_bounds_and_what_lies_between(kept, v):
    small, large = step_variances(*exact(kept))
    assert (small >= 0).all() and (small <= large).all() and (large <= 1).all()
    low, high = variance_bounds(*exact(kept))
    assert (low > 0).all() and torch.equal(high, large) and torch.equal(low[:-1], small[:-1])
    learned = learned_log_variance(torch.full_like(low, v), low.log(), high.log()).exp()
    assert (learned >= low * (1 - 1e-9)).all() and (learned <= high * (1 + 1e-9)).all()


@given(SCHEDULES)
def test_the_network_s_values_at_their_ends_and_in_the_middle(kept):
    low, high = variance_bounds(*exact(kept))
    for v, expected in ((-1.0, low), (1.0, high), (0.0, (low * high).sqrt())):
        learned = learned_log_variance(torch.full((2, *low.shape), v, dtype=low.dtype), low.log(), high.log())
        torch.testing.assert_close(learned.exp(), expected.expand(2, -1))


def test_a_last_step_to_the_clean_picture_has_the_bound_of_the_step_before():
    kept, lost = exact([0.1, 0.6, 0.9, 1.0])
    small, large = step_variances(kept, lost)
    assert small[-1] == 0 and variance_bounds(kept, lost)[0][-1] == small[-2]
    assert ddpm_schedule(kept, lost, 0.0, large=True).variance.tolist() == [*large[:-1].tolist(), small[-2].item()]
    assert torch.equal(variance_bounds(kept[:-1], lost[:-1])[0], small[:-1])  # one to a noisy picture has its own


def test_bounds_are_of_the_precision_that_they_are_asked_in():
    kept = torch.tensor([0.1, 0.6, 1.0])
    assert [bound.dtype for bound in step_variances(kept, 1 - kept)] == [torch.float32] * 2


def test_a_single_step_to_the_clean_picture_has_one_bound():
    low, high = variance_bounds(*exact([0.3, 1.0]))
    assert low.item() == high.item() == pytest.approx(0.7)


@given(SCHEDULES)
def test_small_is_exact_for_data_of_a_single_point(kept):
    """Of two jointly normal x_t−1 and x_t around it, the variance of the first where the second is known."""
    kept, lost = exact(kept)
    now, following = kept[:-1], kept[1:]
    covariance = (now / following).sqrt() * (1 - following)
    expected = (1 - following) - covariance.square() / (1 - now)
    torch.testing.assert_close(step_variances(kept, lost)[0], expected, rtol=1e-6, atol=1e-12)


@given(SCHEDULES)
def test_large_is_exact_for_data_of_unit_variance(kept):
    """x̂0 = √ᾱ_t x_t is the mean of N(0, 1) data there, and every x_t has unit variance."""
    kept, lost = exact(kept)
    schedule = ddpm_schedule(kept, lost, 0.3, large=True)
    variance = (schedule.x0 * kept[:-1].sqrt() + schedule.x).square() + schedule.variance
    noisy = kept[1:] < 1
    torch.testing.assert_close(variance[noisy], torch.ones_like(variance[noisy]))


@given(SCHEDULES)
def test_the_sine_s_part_does_not_depend_on_the_variance(kept):
    small, large = (ddpm_schedule(*exact(kept), 0.3, choice).added for choice in (False, True))
    assert torch.equal(small, large)
