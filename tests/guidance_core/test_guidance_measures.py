import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from guidance_core.guidance_measures import relative_entropy, size_and_angle


@given(st.floats(0.01, 10), st.floats(1, 179), st.integers(0, 9))
def test_guidance_of_a_known_size_and_angle(size, angle, seed):
    """Made of the prediction's own direction and one at right angles to it."""
    generator = torch.Generator().manual_seed(seed)
    positive, other = torch.randn(2, 3, 4, 5, 6, generator=generator, dtype=torch.float64)
    along = positive.flatten(1) / positive.flatten(1).norm(dim=1, keepdim=True)
    across = other.flatten(1) - (other.flatten(1) * along).sum(1, keepdim=True) * along
    across = across / across.norm(dim=1, keepdim=True)
    direction = math.cos(math.radians(angle)) * along + math.sin(math.radians(angle)) * across
    length = positive.flatten(1).norm(dim=1)[:, None]
    guided = positive + (size * length * direction).view_as(positive)
    sizes, angles = size_and_angle(guided, positive)
    torch.testing.assert_close(sizes, torch.full((3,), size), rtol=1e-4, atol=0)
    torch.testing.assert_close(angles, torch.full((3,), angle), rtol=0, atol=0.05)


def test_no_guidance_has_no_angle():
    positive = torch.ones(2, 3, 4)
    size, angle = size_and_angle(positive, positive)
    assert not size.any() and angle.isnan().all()


@pytest.mark.parametrize(("factor", "angle"), [(1.5, 0.0), (0.5, 180.0)])
def test_more_and_less_of_the_same(factor, angle):
    positive = torch.randn(2, 7, generator=torch.Generator().manual_seed(0))
    size, angles = size_and_angle(factor * positive, positive)
    torch.testing.assert_close(size, torch.full((2,), 0.5))
    torch.testing.assert_close(angles, torch.full((2,), angle), rtol=0, atol=0.05)


@given(st.integers(2, 40), st.floats(0, 30), st.integers(0, 9))
def test_entropy_as_scipy_has_it(keys, spread, seed):
    logits = spread * torch.randn(2, 3, keys, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = entropy(logits.softmax(-1).numpy(), base=keys, axis=-1)
    torch.testing.assert_close(relative_entropy(logits).double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("low", [float("-inf"), -1e5, torch.finfo(torch.float32).min])
def test_masked_keys_are_none(low):
    """The entropy of those that are left, with their number."""
    logits = torch.randn(2, 4, 10, generator=torch.Generator().manual_seed(0))
    bias = torch.zeros(10)
    for first, end in ((3, 7), (2, 10), (1, 10)):  # so that six, two and one are left
        bias[first:end] = low
        left = relative_entropy(torch.cat([logits[..., :first], logits[..., end:]], dim=-1))
        torch.testing.assert_close(relative_entropy(logits, bias), left)
        bias.zero_()


def test_the_ends_of_the_range():
    torch.testing.assert_close(relative_entropy(torch.zeros(1, 8)), torch.ones(1))
    one = torch.tensor([[0.0, 1000.0, 0.0]])
    torch.testing.assert_close(relative_entropy(one), torch.zeros(1))
    assert torch.equal(relative_entropy(torch.zeros(2, 1)), torch.ones(2))
    nothing = torch.full((1, 4), float("-inf"))
    assert torch.equal(relative_entropy(torch.zeros(1, 4), nothing), torch.ones(1))


@given(st.floats(0.01, 0.99), st.integers(0, 9))
def test_a_lower_temperature_has_more(temperature, seed):
    logits = 4 * torch.randn(5, 12, generator=torch.Generator().manual_seed(seed))
    assert (relative_entropy(temperature * logits) >= relative_entropy(logits) - 1e-5).all()
