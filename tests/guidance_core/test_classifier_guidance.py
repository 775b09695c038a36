"""Shifts of the prediction, smooth ReLUs and the DDPM schedule against closed forms and torchvision; no ComfyUI."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models import get_model

from guidance_core.classifier_guidance import MINIMAL_SIGNAL, at_scale_of, finite_or_zero, noise_share, x0_shift
from guidance_core.ddpm_sine import ddpm_schedule, kept_signal
from guidance_core.smooth_relu import SmoothReLU


@given(st.floats(0.01, 80), st.floats(-3, 3), st.floats(0.2, 3))
def test_shift_is_tweedie_s_for_a_gaussian_class(sigma, mean, spread):
    """Data N(0, s²), class density p(y|x0) ∝ exp(h·x0): guidance by ∇_x log p(y|x) gives the posterior mean exactly."""
    x, noise = torch.tensor(mean, dtype=torch.float64, requires_grad=True), torch.tensor(sigma, dtype=torch.float64)
    posterior_variance = spread**2 * noise**2 / (spread**2 + noise**2)
    unguided = x * spread**2 / (spread**2 + noise**2)
    tilt = 0.7
    log_p = tilt * unguided + tilt**2 * posterior_variance / 2  # log E[exp(h·x0) | x], up to a constant
    (gradient,) = torch.autograd.grad(log_p, x)
    guided = unguided.detach() + x0_shift(noise, flow=False) * gradient
    torch.testing.assert_close(guided, unguided.detach() + posterior_variance * tilt, rtol=1e-9, atol=1e-12)


@given(st.floats(0.01, 0.97))
def test_flow_shift_is_the_same_step_in_flow_coordinates(sigma):
    """x_flow = (1 − σ)·(x0 + σ/(1 − σ)·n), so gradients in x_flow are 1/(1 − σ) of those in x0 + σ'n."""
    noise = torch.tensor(sigma, dtype=torch.float64)
    ratio = noise / (1 - noise)
    torch.testing.assert_close(x0_shift(noise, flow=True), x0_shift(ratio, flow=False) * (1 - noise))
    torch.testing.assert_close(x0_shift(noise, flow=True, noise_scale=8.0), 64 * x0_shift(noise, flow=True))


def test_noise_share():
    ratio = torch.tensor([0.0, 0.75, 1e6], dtype=torch.float64)
    torch.testing.assert_close(noise_share(ratio, flow=False), torch.tensor([0.0, 0.6, 1.0], dtype=torch.float64))
    assert torch.equal(noise_share(ratio, flow=True), ratio)


def test_flow_shift_is_held_at_pure_noise():
    assert x0_shift(torch.tensor(1.0), flow=True).item() == pytest.approx(1 / MINIMAL_SIGNAL)


@given(st.integers(0, 2**31), st.floats(1e-34, 1e30))
def test_scaled_gradients_have_the_samples_rms(seed, size):
    generator = torch.Generator().manual_seed(seed)
    gradient, sample = (torch.randn(3, 4, 5, generator=generator) for _ in "gs")
    scaled = at_scale_of(gradient * size, sample)
    torch.testing.assert_close(*(t.square().mean((1, 2)).sqrt() for t in (scaled, sample)))
    torch.testing.assert_close(F.cosine_similarity(scaled.flatten(1), gradient.flatten(1)), torch.ones(3))


def test_zero_gradients_stay_zero():
    assert not at_scale_of(torch.zeros(2, 3), torch.ones(2, 3)).any()


def test_broken_gradients_are_dropped_sample_by_sample():
    gradient = torch.ones(4, 2, 2)
    gradient[1, 0, 0], gradient[3, 1, 1] = torch.nan, -torch.inf
    log_p = torch.tensor([-1.0, -1.0, torch.nan, -1.0])
    kept, broken = finite_or_zero(gradient, log_p)
    assert broken.tolist() == [False, True, True, True]
    assert torch.equal(kept, torch.ones(4, 2, 2) * torch.tensor([1.0, 0, 0, 0])[:, None, None])


@pytest.mark.parametrize(
    "relu",
    [
        F.relu, torch.relu, torch.nn.ReLU(), torch.nn.ReLU(inplace=True), torch.Tensor.relu, torch.Tensor.relu_,
        lambda x: torch.relu(input=x),
    ],
)  # fmt: skip
@pytest.mark.parametrize("beta", [0.5, 3.0])
def test_every_relu_becomes_softplus(relu, beta):
    x = torch.linspace(-2, 2, 9)
    with SmoothReLU(beta):
        smooth = relu(x.clone())
    assert torch.equal(smooth, F.softplus(x, beta=beta))
    assert torch.equal(relu(x.clone()), x.clamp(min=0))


def test_a_torchvision_network_is_smoothed_and_left_as_it_was():
    torch.manual_seed(0)
    network = get_model("resnet18").eval()
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        plain = network(x)
        with SmoothReLU(1e4):
            torch.testing.assert_close(network(x), plain, rtol=1e-3, atol=1e-3)
        with SmoothReLU(3.0):
            assert not torch.allclose(network(x), plain)
        assert torch.equal(network(x), plain)
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())


def test_smooth_relu_refuses_a_beta_of_zero():
    with pytest.raises(ValueError, match="softplus_beta = 0: .* above 0"):
        SmoothReLU(0)


@given(st.integers(2, 40), st.floats(1, 100))
def test_ddpm_keeps_the_marginals(steps, highest):
    """With the true x0, a step carries N(√ᾱ_t x0, 1 − ᾱ_t) over to N(√ᾱ_{t−1} x0, 1 − ᾱ_{t−1})."""
    sigmas = torch.cat([torch.linspace(highest, 0.05, steps, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    kept = 1 / (1 + sigmas.square())
    schedule = ddpm_schedule(kept, 1 - kept, 0.3)
    mean = schedule.x0 + schedule.x * kept[:-1].sqrt()
    torch.testing.assert_close(mean, kept[1:].sqrt())
    variance = schedule.x.square() * (1 - kept[:-1]) + schedule.variance
    torch.testing.assert_close(variance, 1 - kept[1:], rtol=1e-9, atol=1e-12)


def test_sine_schedule():
    kept = torch.linspace(0, 1, 5, dtype=torch.float64)
    schedule = ddpm_schedule(kept, 1 - kept, 0.3)
    expected = 0.3 * schedule.variance.max() * torch.tensor([0, 0.5**0.5, 1, 0.5**0.5], dtype=torch.float64)
    torch.testing.assert_close(schedule.added, expected)
    assert not ddpm_schedule(kept, 1 - kept, 0.0).added.any()


@given(st.floats(0, 1), st.sampled_from([1.0, 0.5, 8.0]))
def test_kept_signal_of_both_kinds_of_model(share, scale):
    sigma = torch.tensor(share, dtype=torch.float64)
    kept, lost, factor = kept_signal(sigma, flow=True, noise_scale=scale)
    torch.testing.assert_close((factor * (1 - sigma)).square(), kept)
    torch.testing.assert_close((factor * scale * sigma).square(), 1 - kept)
    torch.testing.assert_close(lost, 1 - kept)
    if share < 1:
        torch.testing.assert_close(kept_signal(scale * sigma / (1 - sigma), flow=False)[0], kept)
