"""The energy against autograd and closed forms in float64; no ComfyUI."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from guidance_core.attention_energy import AttentionEnergy, descend, energy, entropy

temperatures = st.floats(0.05, 4)
weights = st.floats(0, 2)
seeds = st.integers(0, 2**31)


def draw(seed, queries=5, keys=7, width=8):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((queries, width), (keys, width), (keys, width))
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)


def attention(keys, values):
    return lambda query: F.scaled_dot_product_attention(query, keys, values)


@given(seeds, temperatures, weights, weights)
def test_one_step_descends_along_the_gradient_of_the_energy(seed, temperature, alpha, step_size):
    query, keys, _ = draw(seed)
    query.requires_grad_()
    parameters = AttentionEnergy(temperature, alpha, step_size)
    (gradient,) = torch.autograd.grad(energy(query, keys, parameters).sum(), query)
    stepped = descend(query, attention(keys, keys), parameters)
    torch.testing.assert_close(stepped, query - step_size * gradient, rtol=1e-10, atol=1e-10)


def test_energies_of_heads_are_those_of_each():
    heads = [draw(seed) for seed in range(6)]
    query, keys, _ = (torch.stack(parts).unflatten(0, (2, 3)) for parts in zip(*heads))
    parameters = AttentionEnergy(0.5, 0.7)
    each = torch.stack([energy(query, keys, parameters) for query, keys, _ in heads])
    torch.testing.assert_close(energy(query, keys, parameters), each.unflatten(0, (2, 3)))


def test_a_step_of_2_goes_twice_as_far():
    query, keys, values = draw(0)
    once = query - attention(keys, values)(query)
    stepped = descend(query, attention(keys, values), AttentionEnergy(1.0, step_size=2.0))
    torch.testing.assert_close(stepped, query - 2 * once)


@given(seeds)
def test_all_ones_is_exactly_attention(seed):
    query, keys, values = draw(seed)
    parameters = AttentionEnergy(temperature=1)
    assert parameters.is_ordinary
    assert torch.equal(descend(query, attention(keys, values), parameters), attention(keys, values)(query))


@given(seeds, temperatures, weights, weights, st.integers(1, 4))
def test_iterations_follow_algorithm_2(seed, temperature, alpha, step_size, iterations):
    query, keys, values = draw(seed)
    expected = query
    for _ in range(iterations):
        weighted = (temperature * expected @ keys.T / 8**0.5).softmax(-1) @ values
        expected = expected - step_size * (expected - alpha * weighted)
    actual = descend(query, attention(keys, values), AttentionEnergy(temperature, alpha, step_size, iterations))
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@given(seeds, temperatures, st.floats(0.01, 0.2))
def test_small_steps_lower_the_energy(seed, temperature, step_size):
    query, keys, _ = draw(seed)
    parameters = AttentionEnergy(temperature, 1.0, step_size)
    # The energy's curvature is at most 1 plus τβ times the keys' spread; below its inverse every step descends.
    curvature = 1 + temperature / 8**0.5 * keys.square().sum(-1).max()
    parameters = AttentionEnergy(temperature, 1.0, float(min(step_size, 1 / curvature)))
    before = energy(query, keys, parameters)
    after = energy(descend(query, attention(keys, keys), parameters), keys, parameters)
    assert (after <= before + 1e-12).all()


@given(seeds, temperatures, temperatures)
def test_entropy_falls_as_temperature_rises(seed, a, b):
    query, keys, _ = draw(seed)
    low, high = (entropy(t * query @ keys.T) for t in sorted((a, b)))
    assert (low >= high - 1e-10).all()


def test_entropy_at_its_limits():
    query, keys, _ = draw(0)
    logits = query @ keys.T
    torch.testing.assert_close(entropy(0 * logits), torch.full((5,), 7.0, dtype=torch.float64).log())
    assert entropy(1e6 * logits).max() < 1e-9


def test_temperature_zero_retrieves_the_mean_value():
    query, keys, values = draw(1)
    retrieved = descend(query, attention(keys, values), AttentionEnergy(temperature=0))
    torch.testing.assert_close(retrieved, values.mean(0).expand_as(query))


@pytest.mark.parametrize("name", ["temperature", "alpha", "step_size"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_rejects_numbers_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"{name} = .*0 or more"):
        AttentionEnergy(**{name: value})


@pytest.mark.parametrize(("step_size", "iterations"), [(10.0, 4), (4.0, 10), (2000.0, 1), (1e6, 1000)])
def test_rejects_a_query_that_grows_beyond_half_precision(step_size, iterations):
    with pytest.raises(ValueError, match="a query grows"):
        AttentionEnergy(step_size=step_size, iterations=iterations)


@pytest.mark.parametrize(("step_size", "iterations"), [(10.0, 3), (4.0, 6), (2.0, 1000)])
def test_what_is_accepted_stays_finite_in_half_precision(step_size, iterations):
    query, keys, values = (20 * part.half() for part in draw(0))
    parameters = AttentionEnergy(step_size=step_size, iterations=iterations)
    assert descend(query, attention(keys, values), parameters).isfinite().all()


def test_rejects_no_iterations():
    with pytest.raises(ValueError, match="iterations = 0"):
        AttentionEnergy(iterations=0)
