"""The coefficients of DDPM's steps from noise levels of single precision, against fractions; no ComfyUI."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guidance_core.ddpm_sine import ddpm_schedule, kept_signal
from guidance_core.ddpm_variance import variance_bounds


def told_apart(levels: list[float]) -> list[float]:
    """From high to low, without those that lie so near to the one above that float64 rounds their difference, too."""
    ordered = sorted(levels, reverse=True)
    return [level for level, above in zip(ordered, [2.0, *ordered]) if above > 1.001 * level]


# Of single precision, down to below the demo model's (1e-4), where 1 − ᾱ is lost in it.
LEVELS = st.lists(st.floats(2**-30, 1, width=32), min_size=1, max_size=8, unique=True).map(told_apart)


def tensor(numbers) -> torch.Tensor:
    return torch.tensor([float(number) for number in numbers], dtype=torch.float64)


@given(LEVELS, st.booleans(), st.booleans(), st.booleans())
def test_coefficients_are_those_of_exact_arithmetic(levels, flow, ends_clean, large):
    levels = levels + [0.0] if ends_clean or len(levels) == 1 else levels
    kept, lost, factor = kept_signal(torch.tensor(levels).double(), flow)
    schedule = ddpm_schedule(kept, lost, 0.3, large)

    squares = [(Fraction(1 - Fraction(level) if flow else 1) ** 2, Fraction(level) ** 2) for level in levels]
    signal = [a / (a + b) for a, b in squares]  # ᾱ
    pairs = list(zip(signal, signal[1:]))
    beta = [1 - now / following for now, following in pairs]
    small = [(1 - following) / (1 - now) * b for (now, following), b in zip(pairs, beta)]
    bound = small[-2] if len(small) > 1 else beta[-1]
    chosen = [*beta[:-1], bound if signal[-1] == 1 else beta[-1]] if large else small
    close = {"rtol": 1e-8, "atol": 0.0}

    torch.testing.assert_close(lost, tensor(1 - a for a in signal), **close)
    torch.testing.assert_close(factor.square(), tensor(1 / (a + b) for a, b in squares), **close)
    torch.testing.assert_close(schedule.variance, tensor(chosen), **close)
    for coefficient, square in (
        (schedule.x0, [following * (b / (1 - now)) ** 2 for (now, following), b in zip(pairs, beta)]),
        (schedule.x, [now / following * ((1 - following) / (1 - now)) ** 2 for now, following in pairs]),
    ):
        torch.testing.assert_close(coefficient.square(), tensor(square), **close)
    for bounds in (variance_bounds(kept, lost), [schedule.added]):
        assert all(values.isfinite().all() for values in bounds)


@pytest.mark.parametrize("flow", [True, False])
def test_a_step_from_almost_no_noise_to_none_is_a_number(flow):
    """1 − ᾱ is 1e-8 there, which float32 does not tell from 0."""
    sigmas = torch.tensor([1.0, 1e-4, 0.0])
    schedule = ddpm_schedule(*kept_signal(sigmas.double(), flow)[:2], 0.3).to(sigmas)
    assert schedule.x0.dtype == torch.float32
    assert schedule.x0[-1] == 1 and schedule.x[-1] == 0 and schedule.variance[-1] == 0
    assert schedule.variance[0] == pytest.approx(1e-8, rel=1e-3) and schedule.added.isfinite().all()


def test_a_schedule_moves_as_a_whole():
    schedule = ddpm_schedule(*kept_signal(torch.tensor([0.9, 0.5, 0.1]).double(), True)[:2], 0.3)
    moved = schedule.to(torch.zeros(1, dtype=torch.float32))
    assert {part.dtype for part in vars(schedule).values()} == {torch.float64}
    assert {part.dtype for part in vars(moved).values()} == {torch.float32}
    assert all(part.is_meta for part in vars(schedule.to(torch.zeros(1, device="meta"))).values())


def test_a_schedule_is_where_its_noise_levels_are():
    levels = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64, device="meta")
    assert all(part.is_meta for part in vars(ddpm_schedule(*kept_signal(levels, True)[:2], 0.3, large=True)).values())
