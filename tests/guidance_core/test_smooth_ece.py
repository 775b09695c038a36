"""Smooth ECE against its formula written out, its limits, and torchmetrics' calibration error."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from guidance_core.calibration_objective import CalibrationObjective
from guidance_core.smooth_ece import smooth_ece


def batch(seed: int = 0, count: int = 40, classes: int = 4, scale: float = 2.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (count,), generator=generator)


@pytest.mark.parametrize("beta", [0.0, 1e-3, 0.1])
def test_the_printed_form(beta):
    logits, labels = batch()
    expected = 0.0
    for row, label in zip(logits.softmax(-1), labels):
        expected += ((row.max() - float(row.argmax() == label)) ** 2 + beta) ** 0.5 / len(labels)
    torch.testing.assert_close(smooth_ece(logits, labels, beta), expected)


def test_bins_without_rounding_are_the_expected_calibration_error():
    for seed in range(5):
        logits, labels = batch(seed)
        expected = multiclass_calibration_error(logits.softmax(-1).float(), labels, 4, n_bins=15, norm="l1")
        torch.testing.assert_close(smooth_ece(logits, labels, 0.0, "per_bin").float(), expected, rtol=1e-4, atol=1e-5)


def test_doubtful_answers_have_bins_of_their_own():
    """Of a hundred classes: answers below one in fifteen are right here, those above it wrong, and do not make up for them."""
    logits, labels = batch(classes=100, scale=0.1)
    doubtful, sure = batch(1, classes=100, scale=1.0)[0], 8 * torch.eye(100, dtype=torch.float64)[labels]
    logits, labels = torch.cat([logits, doubtful, sure]), torch.cat([logits.argmax(-1), labels, labels])
    expected = multiclass_calibration_error(logits.softmax(-1).float(), labels, 100, n_bins=15, norm="l1")
    confidence = logits.softmax(-1).amax(-1)
    assert (confidence < 1 / 15).any() and ((confidence > 1 / 15) & (confidence < 2 / 15)).any()
    torch.testing.assert_close(smooth_ece(logits, labels, 0.0, "per_bin").float(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["per_sample", "per_bin"])
@pytest.mark.parametrize("beta", [1e-4, 0.05])
def test_gradients(form, beta):
    logits, labels = batch(count=12)
    logits = (logits + 0.01).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: smooth_ece(z, labels, beta, form), logits)


@pytest.mark.parametrize("form", ["per_sample", "per_bin"])
def test_rounding_vanishes_with_beta(form):
    logits, labels = batch()
    sharp = smooth_ece(logits, labels, 0.0, form)
    for beta in (1e-2, 1e-4, 1e-8):
        assert sharp <= smooth_ece(logits, labels, beta, form) <= sharp + beta**0.5
    assert smooth_ece(logits, labels, 1e-8, form) - sharp < 1e-4


@pytest.mark.parametrize("form", ["per_sample", "per_bin"])
def test_a_perfect_classifier_has_a_gradient_of_zero(form):
    """p̂ = a = 1 exactly, where a root has no derivative."""
    logits = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]], requires_grad=True)
    loss = smooth_ece(logits, torch.tensor([0, 1]), 0.0, form)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss == 0 and torch.equal(gradient, torch.zeros_like(logits))


@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(2, 6), st.floats(0, 1), st.floats(0.01, 50))
def test_bounds(seed, count, classes, beta, scale):
    """√β ≤ per_bin ≤ per_sample ≤ √(1 + β): means hide what samples show."""
    logits, labels = batch(seed, count, classes, scale)
    of_bins, of_samples = (smooth_ece(logits, labels, beta, form) for form in ("per_bin", "per_sample"))
    assert beta**0.5 - 1e-9 <= of_bins <= of_samples + 1e-9 <= (1 + beta) ** 0.5 + 2e-9


def test_an_overconfident_classifier_is_pulled_back():
    """The gradient lowers the confidence of what is wrong more than cross entropy alone does."""
    logits = torch.tensor([[4.0, 0.0], [4.0, 0.0]], requires_grad=True)
    labels = torch.tensor([0, 1])
    for form in ("per_sample", "per_bin"):
        alone, both = (
            torch.autograd.grad(CalibrationObjective(weight, 0.01, form)(logits, labels), logits)[0]
            for weight in (0.0, 1.0)
        )
        assert both[1, 0] > alone[1, 0] > 0


def test_an_unknown_form():
    with pytest.raises(ValueError, match="form = 'per_class': it must be one of per_sample, per_bin"):
        smooth_ece(*batch(), 0.1, "per_class")
