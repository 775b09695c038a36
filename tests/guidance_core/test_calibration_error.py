"""Calibration errors against torchmetrics and relplot themselves."""

import math
import sys

import numpy as np
import pytest
import relplot
import torch
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

from guidance_core.calibration_error import calibration_error, check_relplot


def answers(seed: int = 0, count: int = 200, classes: int = 4, scale: float = 2.0):
    """Logits whose top class is right more often than by chance."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(count, classes, generator=generator)
    guessed = torch.randint(classes, (count,), generator=generator)
    return logits, torch.where(torch.rand(count, generator=generator) < 0.5, logits.argmax(1), guessed)


@pytest.mark.parametrize("scale", [0.5, 4.0, 200.0])
def test_accuracy_and_ece(scale):
    """With the largest scale, many answers have a probability of 1 exactly."""
    logits, labels = answers(scale=scale)
    error = calibration_error(logits, labels)
    probabilities = logits.double().softmax(1)
    assert error.n == 200
    assert error.accuracy == pytest.approx(multiclass_accuracy(logits, labels, 4, average="micro").item())
    assert error.confidence == pytest.approx(probabilities.amax(1).mean().item())
    expected = multiclass_calibration_error(probabilities.float(), labels, 4, n_bins=15, norm="l1")
    assert error.ece == pytest.approx(expected.item(), abs=1e-5) and error.ece > 0.01


def test_smooth_ece_is_relplots():
    logits, labels = answers()
    error = calibration_error(logits, labels)
    sure, answer = logits.double().softmax(1).max(1)
    right = (answer == labels).double().numpy()
    assert error.smooth_ece == pytest.approx(relplot.smECE(sure.numpy(), right), abs=1e-3)
    assert 0 < error.interval < error.smooth_ece
    assert error.curve["mu"].shape == error.curve["mesh"].shape and np.isfinite(error.curve["mu"]).all()


def test_a_classifier_that_is_as_sure_as_it_is_right():
    """Labels drawn from its own probabilities: less error than where it is twice as sure."""
    logits, _ = answers(count=2000, scale=1.0)
    labels = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(0))[:, 0]
    honest, overconfident = calibration_error(logits, labels), calibration_error(3 * logits, labels)
    assert honest.smooth_ece < 0.03 and honest.ece < 0.04
    assert overconfident.smooth_ece > 0.2 and overconfident.ece > 0.2
    assert overconfident.accuracy == honest.accuracy


def test_the_same_answers_give_the_same_numbers():
    """Whatever numpy's global generator is at, which stays where it is."""
    first = calibration_error(*answers(count=30))
    np.random.seed(123)
    np.random.rand(5)
    state = np.random.get_state()
    again = calibration_error(*answers(count=30))
    following = np.random.rand(4)
    np.random.set_state(state)
    assert np.array_equal(np.random.rand(4), following)
    assert again.interval == first.interval and again.smooth_ece == first.smooth_ece
    assert all(np.array_equal(again.curve[key], first.curve[key]) for key in ("mu", "lower", "upper"))


def test_half_precision_logits():
    logits, labels = (part[:20] for part in answers())
    half = logits.to(torch.bfloat16)
    a, b = calibration_error(half, labels), calibration_error(half.double(), labels)
    assert (a.ece, a.smooth_ece, a.confidence) == (b.ece, b.smooth_ece, b.confidence)


def test_two_answers_that_are_entirely_sure():
    error = calibration_error(torch.tensor([[1000.0, 0.0], [1000.0, 0.0]]), torch.tensor([0, 1]))
    assert (error.accuracy, error.confidence, error.ece) == (0.5, 1.0, 0.5)
    assert math.isfinite(error.interval) and 0 <= error.smooth_ece <= 1


@pytest.mark.parametrize("count", [0, 1])
def test_too_few(count):
    with pytest.raises(ValueError, match=f"on two pictures or more, not on {count}"):
        calibration_error(torch.zeros(count, 3), torch.zeros(count, dtype=torch.long))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers(value):
    logits, labels = answers()
    logits[7, 2] = value
    with pytest.raises(ValueError, match="logits are not finite numbers"):
        calibration_error(logits, labels)


def test_says_how_to_install_relplot_where_it_is_not(monkeypatch):
    check_relplot()
    monkeypatch.setitem(sys.modules, "relplot", None)  # as Python itself notes a module that cannot be imported
    with pytest.raises(ImportError, match="python -m pip install relplot"):
        check_relplot()


class WithoutFloat64(torch.Tensor):
    """As on Apple's GPUs: until it is on the CPU, nothing of it can be a float64."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        found = super().__torch_function__(function, types, args, kwargs or {})
        if function is torch.Tensor.cpu:
            return found.as_subclass(torch.Tensor)
        if torch.is_tensor(found) and found.dtype is torch.float64:
            raise TypeError("the device has no float64")
        return found


def test_a_device_without_float64():
    logits, labels = answers(count=30)
    expected = calibration_error(logits.float(), labels)
    there = logits.float().as_subclass(WithoutFloat64)
    with pytest.raises(TypeError, match="no float64"):
        there.double()
    assert calibration_error(there, labels.as_subclass(WithoutFloat64)).smooth_ece == expected.smooth_ece
