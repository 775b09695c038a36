"""Which steps are guided where some are left out, and that they move a sampling as far as all would; no ComfyUI."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guidance_core.classifier_guidance import noise_share, x0_shift
from guidance_core.guided_steps import guided_steps
from guidance_core.sampling_steps import step_taken

EIGHT = [1 - step / 8 for step in range(9)]
LEVELS = st.integers(0, 40).map(lambda level: level / 40)  # of a flow model, and not so near to each other as rounding
SCHEDULES = st.lists(LEVELS, min_size=1, max_size=20).flatmap(
    lambda levels: st.sampled_from([sorted(levels), sorted(levels, reverse=True)])
)
SHARES = st.sampled_from([noise_share, x0_shift]).flatmap(
    lambda share: st.booleans().map(
        lambda flow: lambda sigma: share(torch.tensor(sigma, dtype=torch.float64), flow).item()
    )
)


def always(_sigma: float) -> bool:
    return True


def itself(sigma: float) -> float:
    return sigma


def moved(sigmas, factors: dict[int, float], share, held=always) -> float:
    """Σ f u over the evaluations of a sampler that has one in each step."""
    return sum(factors.get(step_taken(sigma, sigmas), 0) * share(sigma) for sigma in sigmas[:-1] if held(sigma))


@given(SCHEDULES, st.integers(1, 12), SHARES, LEVELS, LEVELS)
def test_the_guided_steps_move_as_far_as_all_would(sigmas, every, share, start, end):
    """Also where levels are repeated, rise, or are 0, and in a window that holds fewer steps than n."""

    def held(sigma: float) -> bool:
        return end <= sigma <= start

    factors = guided_steps(sigmas, every, held, share)
    all_of_them = sum(share(sigma) for sigma in sigmas[:-1] if held(sigma))
    assert moved(sigmas, factors, share, held) == pytest.approx(all_of_them, rel=1e-9)
    levels = {sigma for sigma in sigmas[:-1] if held(sigma) and sigma > 0}
    assert len(factors) == math.ceil(len(levels) / every)
    assert {sigmas[step] for step in factors} <= levels


@given(SCHEDULES)
def test_one_of_one_is_each_step_as_it_is(sigmas):
    sigmas = [*dict.fromkeys(sigmas)]  # each once
    factors = guided_steps(sigmas, 1, always, itself)
    assert factors == {step: 1.0 for step, sigma in enumerate(sigmas[:-1]) if sigma > 0}


@pytest.mark.parametrize("every", range(1, 13))
def test_eight_steps_of_a_flow_model(every):
    """With the first of each n steps n times as strong, it was 6 for n = 4."""
    assert moved(EIGHT, guided_steps(EIGHT, every, always, itself), itself) == pytest.approx(4.5)


def test_the_middle_one_is_guided():
    """Of two it is the second: in the first step of a sampling there is nothing to be seen yet."""
    factors = guided_steps(EIGHT, 4, always, itself)
    assert factors == {2: pytest.approx(3.25 / 0.75), 6: pytest.approx(1.25 / 0.25)}
    assert [*guided_steps(EIGHT, 3, always, itself)] == [1, 4, 7]
    assert [*guided_steps(EIGHT, 2, always, itself)] == [1, 3, 5, 7]


def test_fewer_steps_than_n_are_not_guided_more():
    assert guided_steps([1.0, 0.0], 4, always, itself) == {0: 1.0}
    assert guided_steps([1.0, 0.5, 0.0], 4, always, itself) == {1: pytest.approx(1.5 / 0.5)}


@pytest.mark.parametrize("cuts", [[4], [1, 2, 3, 4, 5, 6, 7], [3, 5]])
def test_a_sampling_in_parts_moves_as_far_as_a_whole_one(cuts):
    """KSampler (Advanced) gives each part the noise levels of its own steps."""
    parts = [EIGHT[start : end + 1] for start, end in itertools.pairwise([0, *cuts, 8])]
    together = sum(moved(part, guided_steps(part, 4, always, itself), itself) for part in parts)
    assert together == pytest.approx(4.5)


def test_a_window_that_holds_a_step_guides_in_it():
    """Wherever the step stands among the n."""
    for step, sigma in enumerate(EIGHT[:-1]):
        assert guided_steps(EIGHT, 4, {sigma}.__contains__, itself) == {step: 1.0}
    assert guided_steps(EIGHT, 4, lambda sigma: sigma > 1, itself) == {}


def test_factors_stay_within_single_precision():
    """A step that moves nothing beside the others is not the one that moves for all of them."""
    assert guided_steps([1.0, 1e-25, 0.0], 2, always, lambda sigma: sigma**2) == {0: 1.0}


def test_a_sampling_without_a_step():
    assert guided_steps([0.7], 4, always, itself) == {}
