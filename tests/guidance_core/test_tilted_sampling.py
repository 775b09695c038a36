"""Tilted weights against autograd and their limits; no ComfyUI."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from guidance_core.tilted_sampling import tilted_score, tilted_weights

seeds = st.integers(0, 2**31)


def draw(seed, batch=5):
    return -3 * torch.rand(batch, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(seeds, st.floats(-50, 50).filter(lambda tilt: abs(tilt) > 1e-6))
def test_weights_are_the_gradient_of_the_tilted_score(seed, tilt):
    log_p = draw(seed).requires_grad_()
    (gradient,) = torch.autograd.grad(tilted_score(log_p, tilt), log_p)
    torch.testing.assert_close(tilted_weights(log_p.detach(), tilt), len(log_p) * gradient, rtol=1e-9, atol=1e-9)


@given(seeds, st.floats(-1e4, 1e4))
def test_weights_have_mean_one(seed, tilt):
    weights = tilted_weights(draw(seed), tilt)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.mean().item(), 1.0)


@given(seeds)
def test_limits(seed):
    log_p = draw(seed)
    assert torch.equal(tilted_weights(log_p, 0.0), torch.ones_like(log_p))
    torch.testing.assert_close(tilted_score(log_p, 1e-6), tilted_score(log_p, 0.0), rtol=1e-4, atol=1e-4)
    best, worst = (torch.nn.functional.one_hot(i, 5).double() * 5 for i in (log_p.argmax(), log_p.argmin()))
    torch.testing.assert_close(tilted_weights(log_p, 1e6), best)
    torch.testing.assert_close(tilted_weights(log_p, -1e6), worst)


@given(seeds, st.floats(-50, 50))
def test_a_sample_whose_probability_is_unknown_has_no_part_in_the_others(seed, tilt):
    log_p = draw(seed)
    weights = tilted_weights(torch.cat([log_p[:2], torch.tensor([torch.nan]), log_p[2:]]), tilt)
    assert weights[2] == 0
    torch.testing.assert_close(weights[[0, 1, 3, 4, 5]], tilted_weights(log_p, tilt), check_dtype=False)


def test_one_sample_is_never_tilted():
    assert torch.equal(tilted_weights(torch.tensor([-7.0]), -0.2), torch.ones(1))
