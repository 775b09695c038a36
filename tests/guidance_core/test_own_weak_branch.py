import torch
from hypothesis import given
from hypothesis import strategies as st

from guidance_core.own_weak_branch import guide, rescale, spread


def predictions(seed: int) -> torch.Tensor:
    """[2, 2, 3, 4, 5]: two of two pictures."""
    return torch.randn(2, 2, 3, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.floats(0, 100), st.integers(0, 9))
def test_at_cfg_1_it_is_guidance_with_one_plus_s(scale, seed):
    positive, weak = predictions(seed)
    expected = weak + (1 + scale) * (positive - weak)
    torch.testing.assert_close(guide(positive, positive - weak, scale), expected)


def test_scale_0_keeps_the_bits():
    guided, difference = predictions(0)
    assert torch.equal(guide(guided, difference, 0.0), guided)


@given(st.integers(0, 9), st.floats(0, 1))
def test_the_rescale_of_each_picture(seed, share):
    guided, positive = 3 * predictions(seed) + 1
    rescaled = rescale(guided, spread(positive), share)
    for picture, before, target in zip(rescaled, guided, positive):
        torch.testing.assert_close(picture.std(), share * target.std() + (1 - share) * before.std(), rtol=1e-5, atol=0)
        # One factor for all values of a picture.
        torch.testing.assert_close(picture / picture.std(), before / before.std(), rtol=1e-5, atol=1e-9)


def test_a_share_of_0_keeps_the_bits():
    guided, positive = predictions(0)
    assert torch.equal(rescale(guided, spread(positive), 0.0), guided)


def test_a_prediction_without_spread_stays():
    guided, positive = torch.ones(2, 3, 4, 4), predictions(1)[0].float()
    assert torch.equal(rescale(guided, spread(positive), 1.0), guided)


def test_half_precision_stays_what_it_is():
    guided, positive = predictions(0).half() * 100
    assert rescale(guided, spread(positive), 0.7).dtype == torch.float16
