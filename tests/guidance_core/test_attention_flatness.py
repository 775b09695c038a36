"""The temperature of a flatness against closed forms and a float64 oracle; no ComfyUI."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from guidance_core import attention_flatness
from guidance_core.attention_energy import AttentionEnergy, entropy
from guidance_core.attention_flatness import entropy_at, temperature_for

sizes = st.sampled_from([0.1, 1.0, 5.0, 20.0])  # of logits
shares = st.floats(0.02, 0.98)
seeds = st.integers(0, 2**31)
NOT_ALLOWED = -math.inf


def draw(seed, size, rows=2, heads=2, queries=6, keys=12) -> torch.Tensor:
    """Logits, float32, of which each query has its own size, as in a network."""
    generator = torch.Generator().manual_seed(seed)
    of_query = torch.rand(rows, heads, queries, 1, generator=generator) + 0.5
    return size * of_query * torch.randn(rows, heads, queries, keys, generator=generator)


def triangle(queries: int, keys: int) -> torch.Tensor:
    return torch.full((1, 1, queries, keys), NOT_ALLOWED).triu(keys - queries + 1)


def share_of_the_way(logits, temperature, bias=0.0) -> torch.Tensor:
    """In float64, by the module's own definition of entropy."""

    def at(t):
        tempered = t * logits.double() + bias
        return entropy(tempered.clamp(min=-1e9)).mean(-1)

    return (at(temperature.double()[..., None, None]) - at(1)) / (at(0) - at(1))


@given(seeds, sizes, shares)
def test_entropy_goes_the_asked_share_of_the_way(seed, size, flatness):
    logits = draw(seed, size)
    share = share_of_the_way(logits, temperature_for(logits, flatness))
    torch.testing.assert_close(share, torch.full_like(share, flatness), rtol=0, atol=0.01)


@given(seeds, sizes, shares)
def test_is_the_root_that_a_library_finds(seed, size, flatness):
    logits = draw(seed, size, rows=1, heads=1).double()

    def missing(log_temperature):
        share = share_of_the_way(logits, torch.full((1, 1), math.exp(log_temperature), dtype=torch.float64))
        return share.item() - flatness

    found = temperature_for(logits, flatness).item()
    assert found == pytest.approx(math.exp(brentq(missing, -12, 0)), rel=0.03)


@given(seeds, st.floats(10, 50), shares, st.sampled_from(["sink", "itself", "half of the queries"]), st.booleans())
def test_keys_that_stand_out_are_no_obstacle(seed, gap, flatness, kind, causal):
    """Where attention falls from uniform on one key within a small range of temperatures."""
    logits = draw(seed, 1.0, queries=32, keys=77 if kind == "half of the queries" else 256)
    places = torch.arange(32)
    if kind == "itself":
        logits[..., places, places] += gap
    else:
        logits[..., :: 1 if kind == "sink" else 2, 0] += gap
    bias = triangle(*logits.shape[2:]) if causal else None
    temperature = temperature_for(logits, flatness, bias)
    share = share_of_the_way(logits, temperature, 0.0 if bias is None else bias.double())
    torch.testing.assert_close(share, torch.full_like(share, flatness), rtol=0, atol=0.03)


@given(seeds, st.floats(10, 50), shares)
def test_nor_are_queries_without_a_key_beside_them(seed, gap, flatness):
    logits, bias = draw(seed, 1.0, queries=32, keys=256), torch.zeros(1, 1, 32, 256)
    logits[..., 0] += gap
    bias[:, :, 28:] = NOT_ALLOWED
    found, alone = temperature_for(logits, flatness, bias), temperature_for(logits[:, :, :28], flatness)
    torch.testing.assert_close(found, alone, rtol=0.03, atol=0)


@given(seeds, sizes, shares)
def test_keys_that_are_masked_are_as_if_they_were_not_there(seed, size, flatness):
    logits = draw(seed, size)
    bias = torch.zeros(12)
    bias[8:] = NOT_ALLOWED
    masked = temperature_for(logits, flatness, bias.expand_as(logits))
    torch.testing.assert_close(masked, temperature_for(logits[..., :8], flatness), rtol=0.01, atol=0)


@given(seeds, sizes, shares)
def test_a_causal_mask_leaves_each_query_its_own_number_of_keys(seed, size, flatness):
    logits, bias = draw(seed, size, queries=12), triangle(12, 12)
    share = share_of_the_way(logits, temperature_for(logits, flatness, bias), bias.double())
    torch.testing.assert_close(share, torch.full_like(share, flatness), rtol=0, atol=0.01)


@given(seeds, sizes, shares, shares)
def test_more_flatness_is_a_lower_temperature(seed, size, a, b):
    logits, (less, more) = draw(seed, size), sorted((a, b))
    assert (temperature_for(logits, more) <= 1.01 * temperature_for(logits, less)).all()


@given(seeds, sizes, shares)
def test_both_solvers_find_the_same(seed, size, flatness):
    """Where there is no bias but a mask."""
    logits, mask = draw(seed, size), triangle(6, 12)
    by_secants, by_bisection = (temperature_for(logits, flatness, mask, any_bias) for any_bias in (False, True))
    torch.testing.assert_close(by_secants, by_bisection, rtol=0.03, atol=2e-3)


@given(seeds, sizes, shares)
def test_a_row_does_not_know_its_neighbours(seed, size, flatness):
    logits = draw(seed, size, rows=3)
    together = temperature_for(logits, flatness)
    alone = torch.cat([temperature_for(row[None], flatness) for row in logits])
    torch.testing.assert_close(together, alone, rtol=0.01, atol=0)


@given(seeds, sizes, shares)
def test_a_bias_that_is_no_mask_is_not_tempered(seed, size, flatness):
    """As T5's positions: at temperature 0 attention is that of the bias alone."""
    logits = draw(seed, size)
    bias = 0.5 * torch.randn(1, 2, 6, 12, generator=torch.Generator().manual_seed(seed))
    temperature = temperature_for(logits, flatness, bias, any_bias=True)
    assert ((temperature >= 0) & (temperature <= 1)).all()
    own, highest = (entropy_at(logits, torch.full((2, 2), t), bias) for t in (1.0, 0.0))
    found, wanted = entropy_at(logits, temperature, bias), own + flatness * (highest - own)
    way = (highest - own).abs()
    assert ((found - wanted).abs() <= 0.03 * way + 1e-3)[way > 0.05].all()


@pytest.mark.parametrize("flatness", [0, 1])
def test_the_ends_are_exact(flatness):
    logits = draw(0, 3.0).half()
    assert torch.equal(temperature_for(logits, flatness), torch.full((2, 2), 1.0 - flatness))


def test_entropy_without_a_mask_is_the_mean_of_the_queries():
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    temperature = torch.tensor([[0.5, 1.0, 2.0], [0.0, 0.1, 4.0]])
    expected = torch.distributions.Categorical(logits=temperature[..., None, None] * logits).entropy().mean(-1)
    torch.testing.assert_close(entropy_at(logits, temperature, None), expected)


def test_two_keys_in_closed_form():
    """Logits 0 and x: the entropy of a coin that falls with p = sigmoid(τ x)."""
    x, flatness = 2.0, 0.4

    def coin(t):
        p = 1 / (1 + math.exp(-t * x))
        return -p * math.log(p) - (1 - p) * math.log(1 - p)

    temperature = temperature_for(torch.tensor([[[[0.0, x]]]]), flatness).item()
    assert coin(temperature) == pytest.approx(coin(1) + flatness * (math.log(2) - coin(1)), abs=1e-4)


def test_small_logits_in_closed_form():
    """H(0) − H(τ) = τ² Var / 2, so the way that is left is τ² of the whole."""
    temperature = temperature_for(draw(1, 0.1, keys=500), 0.64)
    torch.testing.assert_close(temperature, torch.full((2, 2), 0.6), rtol=0.02, atol=0)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("flatness", [0.1, 0.5, 0.9])
def test_the_solver_begins_where_small_logits_are_solved(monkeypatch, flatness, masked):
    """u = logit(f) + log(Var(l) / (2 (H(0) − H(1)))), before any secant."""
    monkeypatch.setattr(attention_flatness, "PASSES", 0)
    logits = draw(0, 0.1, keys=50)
    left_out = torch.rand(logits.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    bias = torch.zeros(logits.shape).masked_fill(left_out, NOT_ALLOWED) if masked else None
    share = share_of_the_way(logits, temperature_for(logits, flatness, bias), bias if masked else 0.0)
    torch.testing.assert_close(share, torch.full_like(share, flatness), rtol=0, atol=0.005)


def test_the_solver_begins_where_temperatures_near_0_are_solved(monkeypatch):
    """There the same is exact for logits of any size: 1 − f = τ² Var(l) / (2 (H(0) − H(1)))."""
    monkeypatch.setattr(attention_flatness, "PASSES", 0)
    logits = draw(0, 3.0, keys=50)
    left = 1 - share_of_the_way(logits, temperature_for(logits, 0.9999))
    torch.testing.assert_close(left, torch.full_like(left, 1e-4), rtol=0.05, atol=0)


def test_the_first_step_is_of_a_row_alone_and_knows_no_shift(monkeypatch):
    """Where a key stands out. Later steps would hide it but for the last bits, in which batches must not differ either."""
    monkeypatch.setattr(attention_flatness, "PASSES", 1)
    logits = draw(0, 1.0)
    logits[..., 0] += torch.tensor([30.0, 90.0])[:, None, None]  # far from where the solver begins
    found = temperature_for(logits, 0.3)
    alone = torch.cat([temperature_for(row, 0.3) for row in logits.split(1)])
    torch.testing.assert_close(found, alone, rtol=1e-5, atol=0)
    torch.testing.assert_close(temperature_for(logits + 50, 0.3), found, rtol=1e-3, atol=0)


@pytest.mark.parametrize("flatness", [0.2, 0.8])
def test_a_bias_that_logits_make_up_for(flatness):
    """Attention as it is may be flatter than that of the bias alone: then its entropy falls on the way."""
    logits = 2 * torch.randn(2, 2, 6, 12, generator=torch.Generator().manual_seed(0))
    temperature = temperature_for(logits, flatness, -logits, any_bias=True)
    own, end = (entropy_at(logits, torch.full((2, 2), t), -logits) for t in (1.0, 0.0))
    assert (own > end).all()
    torch.testing.assert_close(
        entropy_at(logits, temperature, -logits), torch.lerp(own, end, flatness), rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("any_bias", [False, True])
@pytest.mark.parametrize("flatness", [0.5, 1.0])
def test_temperatures_are_where_the_logits_are(flatness, any_bias):
    assert temperature_for(torch.empty(2, 2, 6, 12, device="meta"), flatness, any_bias=any_bias).is_meta


@pytest.mark.parametrize("flatness", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("size", [0.0, 1e-3, 1e4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_logits_give_a_temperature(flatness, size, dtype):
    temperature = temperature_for(draw(0, size).to(dtype), flatness)
    assert temperature.dtype == torch.float32
    assert ((temperature >= 0) & (temperature <= 1)).all()


@pytest.mark.parametrize("flatness", [0.01, 0.5, 0.99])
def test_a_single_key_and_no_key_at_all_give_a_temperature(flatness):
    logits, nowhere = draw(0, 2.0), torch.full((1, 1, 6, 12), NOT_ALLOWED)
    for temperature in (temperature_for(logits[..., :1], flatness), temperature_for(logits, flatness, nowhere)):
        assert ((temperature >= 0) & (temperature <= 1)).all()


def test_queries_without_a_key_change_nothing_for_the_others():
    logits, bias = draw(0, 2.0), torch.zeros(1, 1, 6, 12)
    bias[:, :, 3:] = NOT_ALLOWED
    expected = temperature_for(logits[:, :, :3], 0.3)
    torch.testing.assert_close(temperature_for(logits, 0.3, bias), expected, rtol=0.01, atol=0)


def test_the_energy_knows_its_temperature_at_the_ends_alone():
    assert AttentionEnergy(0.3).fixed_temperature == AttentionEnergy(0.3, flatness=-0.01).fixed_temperature == 0.3
    assert AttentionEnergy(0.3, flatness=0.0).is_ordinary
    assert AttentionEnergy(0.3, flatness=1.0).fixed_temperature == 0
    assert AttentionEnergy(1.0, flatness=0.2).fixed_temperature is None
    assert not AttentionEnergy(1.0, flatness=0.2).is_ordinary
    assert not AttentionEnergy(0.3, alpha=0.9, flatness=0.0).is_ordinary


@pytest.mark.parametrize("flatness", [-1.01, 1.01, math.nan, math.inf, -math.inf])
def test_rejects_a_flatness_out_of_range(flatness):
    with pytest.raises(
        ValueError, match=f"flatness = {flatness}: it must be below 0, to -1 .use temperature., or between 0 and 1"
    ):
        AttentionEnergy(flatness=flatness)
