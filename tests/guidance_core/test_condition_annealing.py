"""Condition annealing against its closed forms and limits; no ComfyUI."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from guidance_core.condition_annealing import ConditionAnnealing, seeded_noise, with_statistics_of

seeds = st.integers(0, 2**31)
shares = st.floats(0, 1)
scales = st.just(0.0) | st.floats(1e-3, 100)


def draw(seed, *shape, dtype=torch.float64):
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) - 1


@given(shares, shares, shares)
def test_schedule(t, one, other):
    tau1, tau2 = sorted((one, other))
    kept = ConditionAnnealing(tau1=tau1, tau2=tau2).kept(t)
    assert 0 <= kept <= 1
    if t <= tau1:
        assert kept == 1
    elif t >= tau2:
        assert kept == 0
    else:
        assert math.isclose(kept * (tau2 - tau1) + t, tau2)


def test_schedule_by_hand():
    annealing = ConditionAnnealing(tau1=0.5, tau2=0.75)
    times = (1.0, 0.75, 0.6875, 0.625, 0.5, 0.4, 0.0)
    assert [annealing.kept(t) for t in times] == [0, 0, 0.25, 0.5, 1, 1, 1]
    step = ConditionAnnealing(tau1=0.5, tau2=0.5)
    assert [step.kept(t) for t in (1.0, 0.500001, 0.5, 0.0)] == [0, 0, 1, 1]


SCHEDULES = {  # σ of the share of the sampling that is done
    "flow": lambda done: 1 - done,
    "curved": lambda done: 80 * (1 - done) ** 7,
    "steps": lambda done: 10 - math.floor(10 * done),
}


@pytest.mark.parametrize("schedule", ["flow", "curved"])
@given(t=shares, one=shares, other=shares)
def test_the_share_at_a_noise_level_is_that_of_its_time(schedule, t, one, other):
    tau1, tau2 = sorted((one, other))
    assume(tau2 - tau1 > 0.01 and t > 0.1)
    annealing, percent_to_sigma = ConditionAnnealing(tau1=tau1, tau2=tau2), SCHEDULES[schedule]
    found = annealing.kept_at(percent_to_sigma(1 - t), percent_to_sigma)
    assert math.isclose(found, annealing.kept(t), abs_tol=1e-3)  # levels that differ by less than 10⁻⁶ are one


def test_a_noise_level_of_many_times_is_the_earliest_of_them():
    annealing = ConditionAnnealing(tau1=0.25, tau2=0.75)
    found = [annealing.kept_at(sigma, SCHEDULES["steps"]) for sigma in (10, 8, 7, 6, 5, 4, 3, 2, 0)]
    # σ = 7 is there from 0.3 to 0.4 of the sampling, when t falls from 0.7 to 0.6.
    assert found == pytest.approx([0, 0, 0.1, 0.3, 0.5, 0.7, 1, 1, 1], abs=1e-6)


def test_a_noise_level_within_rounding_of_an_end_is_at_it():
    annealing, flow = ConditionAnnealing(tau1=0.25, tau2=0.75), SCHEDULES["flow"]
    assert [annealing.kept_at(sigma, flow) for sigma in (0.25 * (1 + 5e-7), 0.75 * (1 - 5e-7))] == [1, 0]
    assert 0 < annealing.kept_at(0.75 * (1 - 5e-6), flow) < annealing.kept_at(0.25 * (1 + 5e-6), flow) < 1


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_equal_taus_are_a_step_at_a_noise_level_too(tau):
    annealing = ConditionAnnealing(tau1=tau, tau2=tau)
    assert annealing.kept_at(tau, SCHEDULES["flow"]) == 1
    assert annealing.kept_at(tau + 0.01, SCHEDULES["flow"]) == 0


@given(seeds, shares, scales, shares)
def test_the_formula_written_out(seed, kept, scale, mixing):
    assume(kept < 1 and scale > 0)
    c, n = draw(seed, 2, 5, 3), draw(seed + 1, 2, 5, 3)
    annealed = ConditionAnnealing(scale, mixing).anneal(c, n, kept)
    for i in range(2):
        noisy = kept**0.5 * c[i] + scale * (1 - kept) ** 0.5 * n[i]
        restored = (noisy - noisy.mean()) / noisy.std() * c[i].std() + c[i].mean()
        torch.testing.assert_close(annealed[i], mixing * restored + (1 - mixing) * noisy)


@given(seeds, shares, scales)
def test_mixing_1_restores_mean_and_spread_of_each_sample(seed, kept, scale):
    c, n = draw(seed, 3, 7, 4), draw(seed + 1, 3, 7, 4)
    c[1] = 5 * c[1] + 20
    annealed = ConditionAnnealing(scale, mixing=1).anneal(c, n, kept)
    torch.testing.assert_close(annealed.mean((1, 2)), c.mean((1, 2)))
    torch.testing.assert_close(annealed.std((1, 2)), c.std((1, 2)))


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("scale", [0.1, 2.0])
def test_variance(kept, scale):
    """Var ĉ = γ Var c + s² (1 − γ)."""
    c, n = draw(1, 1, 400, 500), seeded_noise((1, 400, 500), 2).double()
    annealed = ConditionAnnealing(scale, mixing=0).anneal(c, n, kept)
    torch.testing.assert_close(annealed.var(), kept * c.var() + scale**2 * (1 - kept), rtol=0.01, atol=0)


@given(seeds, shares, shares)
def test_nothing_to_do_gives_the_condition_itself(seed, kept, mixing):
    c, n = draw(seed, 2, 4), draw(seed + 1, 2, 4)
    assert ConditionAnnealing(0.0, mixing).anneal(c, n, kept) is c
    assert ConditionAnnealing(0.5, mixing).anneal(c, n, 1.0) is c


def test_limits():
    c, n = draw(1, 2, 6, 5), draw(2, 2, 6, 5)
    assert torch.equal(ConditionAnnealing(0.5, mixing=0).anneal(c, n, 0.0), 0.5 * n)
    nearly = ConditionAnnealing(0.5, mixing=1).anneal(c, n, 1 - 1e-15)
    torch.testing.assert_close(nearly, c, rtol=1e-6, atol=1e-6)
    # Without its mean and spread, noise of any strength is the same noise.
    weak, strong = (ConditionAnnealing(scale, mixing=1).anneal(c, n, 0.0) for scale in (1e-6, 1e6))
    torch.testing.assert_close(weak, strong)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_kept_and_computed_in_float32_at_least(dtype):
    c, n = draw(1, 2, 6, 5, dtype=torch.float32).to(dtype), draw(2, 2, 6, 5, dtype=torch.float32)
    annealed = ConditionAnnealing(0.5).anneal(c, n, 0.4)
    assert annealed.dtype == dtype
    torch.testing.assert_close(annealed, ConditionAnnealing(0.5).anneal(c.double(), n.double(), 0.4).to(dtype))


@given(seeds, shares, scales, shares, st.floats(-1e4, 1e4), st.sampled_from([torch.float16, torch.float32]))
def test_a_constant_condition_gives_no_nan(seed, kept, scale, mixing, constant, dtype):
    c = torch.full((2, 6), constant, dtype=dtype)
    n = draw(seed, 2, 6, dtype=torch.float32)
    assert ConditionAnnealing(scale, mixing).anneal(c, n, kept).isfinite().all()


def test_zeros_stay_zeros_at_mixing_1():
    c, n = torch.zeros(2, 6), draw(1, 2, 6, dtype=torch.float32)
    assert torch.equal(ConditionAnnealing(0.5, mixing=1).anneal(c, n, 0.3), c)
    assert not torch.equal(ConditionAnnealing(0.5, mixing=0.5).anneal(c, n, 0.3), c)


@pytest.mark.parametrize("scale", [1e-300, 1e-25, 1e-10, 1e10, 1e25])
def test_extreme_scales_stay_finite(scale):
    c, n = draw(1, 2, 6, dtype=torch.float32), draw(2, 2, 6, dtype=torch.float32)
    annealed = ConditionAnnealing(scale, mixing=1).anneal(c, n, 0.0)
    assert annealed.isfinite().all() and annealed.abs().max() < 100


def test_noise_without_spread_gives_the_mean():
    c = torch.tensor([[1.0, 3.0], [2.0, 6.0]])
    assert torch.equal(with_statistics_of(c, torch.full((2, 2), 7.0)), torch.tensor([[2.0, 2.0], [4.0, 4.0]]))
    assert torch.equal(with_statistics_of(torch.tensor([[5.0]]), torch.tensor([[9.0]])), torch.tensor([[5.0]]))


@given(seeds, st.integers(1, 5))
def test_noise_depends_on_its_key_and_row(seed, batch):
    noise = seeded_noise((batch, 3, 2), seed, "a")
    assert torch.equal(noise, seeded_noise((6, 3, 2), seed, "a")[:batch])
    assert not torch.equal(noise, seeded_noise((batch, 3, 2), seed, "b"))
    assert not torch.equal(noise, seeded_noise((batch, 3, 2), seed + 1, "a"))
    assert batch == 1 or not torch.equal(noise[0], noise[1])


def test_noise_is_normal_and_that_of_neighbouring_keys_independent():
    noise = torch.stack([seeded_noise((1, 10000), seed)[0] for seed in range(8)])
    torch.testing.assert_close(noise.mean(1), torch.zeros(8), rtol=0, atol=0.05)
    torch.testing.assert_close(torch.cov(noise), torch.eye(8), rtol=0, atol=0.06)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"noise_scale": -0.1}, "noise_scale = -0.1: it must be a finite number of 0 or more"),
        ({"noise_scale": math.nan}, "noise_scale = nan"),
        ({"noise_scale": math.inf}, "noise_scale = inf"),
        ({"mixing": -0.1}, "mixing = -0.1: it must lie between 0 and 1"),
        ({"mixing": 1.1}, "mixing = 1.1"),
        ({"mixing": math.nan}, "mixing = nan"),
        ({"tau1": math.nan}, "tau1 = nan"),
        ({"tau1": -0.5}, "tau1 = -0.5"),
        ({"tau2": 1.5}, "tau2 = 1.5"),
        ({"tau1": 0.9, "tau2": 0.6}, "tau1 = 0.9 and tau2 = 0.6: tau1 must not be above tau2"),
    ],
)
def test_bad_parameters(inputs, message):
    with pytest.raises(ValueError, match=message):
        ConditionAnnealing(**inputs)


def test_shared_workflows_keep_their_noise():
    """As it is now: a seed's pictures depend on it."""
    torch.testing.assert_close(
        seeded_noise((2, 2), 5, "positive"), torch.tensor([[0.8300, -0.3684], [-0.4511, 1.3745]]), atol=1e-4, rtol=0
    )
