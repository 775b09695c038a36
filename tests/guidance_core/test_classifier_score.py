"""The score, its divergences and its gradient against autograd, SciPy and closed forms; no ComfyUI."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr

from guidance_core.classifier_score import ClassifierScore, log_probability, smoothed_target
from guidance_core.divergence import DIVERGENCES

NAMES = ("none", *DIVERGENCES)


@st.composite
def scores(draw):
    """Any valid score."""
    name = draw(st.sampled_from(NAMES))
    return ClassifierScore(
        name,
        divergence_weight=draw(st.floats(0, 3)),
        target_confidence=draw(st.floats(0, 0.99 if name == "forward_kl" else 1)),
        joint_temperature=draw(st.floats(0, 3)),
        marginal_temperature=draw(st.floats(0, 3)),
        entropy_weight=draw(st.floats(-2, 2)),
    )


def predictions(seed, batch=3, classes=6, spread=3.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(batch, classes, generator=generator, dtype=torch.float64)
    return logits.to(dtype), torch.randint(classes, (batch,), generator=generator)


@given(scores(), st.integers(0, 2**31), st.sampled_from([2, 3, 50]), st.floats(0.1, 20))
def test_gradient_is_autograd_s(score, seed, classes, spread):
    logits, labels = predictions(seed, classes=classes, spread=spread)
    logits.requires_grad_()
    (expected,) = torch.autograd.grad(score.value(logits, labels).sum(), logits)
    torch.testing.assert_close(score.logit_gradient(logits.detach(), labels), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", DIVERGENCES)
@given(seed=st.integers(0, 2**31), confidence=st.floats(0, 0.999))
def test_divergences_are_scipy_s(name, seed, confidence):
    logits, labels = predictions(seed)
    q, log_p = smoothed_target(labels, 6, confidence, torch.float64), logits.log_softmax(-1)
    p = log_p.exp()
    expected = {
        "reverse_kl": rel_entr(q, p).sum(-1),
        "forward_kl": rel_entr(p, q).sum(-1),
        "jensen_shannon": torch.from_numpy(jensenshannon(p, q, axis=-1) ** 2),
    }[name]
    np.testing.assert_allclose(DIVERGENCES[name].value(q, log_p), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_class_without_probability_counts_nothing(name):
    """0 log 0 = 0, in the prediction and, but for forward KL, in the target."""
    log_p = torch.tensor([[0.0, 1.0, -2000.0]], dtype=torch.float64).log_softmax(-1)
    q = torch.tensor([[0.5, 0.3, 0.2]] if name == "forward_kl" else [[1.0, 0.0, 0.0]], dtype=torch.float64)
    p = log_p.exp()
    mixture = (p + q) / 2
    expected = {
        "reverse_kl": rel_entr(q, p).sum(),
        "forward_kl": rel_entr(p, q).sum(),
        "jensen_shannon": (rel_entr(p, mixture) + rel_entr(q, mixture)).sum() / 2,
    }[name]
    assert p[0, 2] == 0
    assert DIVERGENCES[name].value(q, log_p).item() == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergence_is_zero_only_where_the_prediction_is_the_target(name):
    labels = torch.tensor([2])
    q = smoothed_target(labels, 5, 0.7, torch.float64)
    value = DIVERGENCES[name].value
    assert value(q, q.log()).abs().item() < 1e-15
    other = smoothed_target(labels, 5, 0.69, torch.float64)
    assert value(q, other.log()).item() > 1e-6
    score = ClassifierScore(name, 1.0, 0.7, joint_temperature=0, marginal_temperature=0)
    assert score.logit_gradient(q.log(), labels).abs().max() < 1e-15


@given(st.integers(0, 2**31), st.floats(0, 1), st.floats(0.1, 100))
def test_jensen_shannon_is_bounded(seed, confidence, spread):
    logits, labels = predictions(seed, spread=spread)
    value = DIVERGENCES["jensen_shannon"].value(
        smoothed_target(labels, 6, confidence, torch.float64), logits.log_softmax(-1)
    )
    assert (value <= math.log(2) + 1e-12).all() and (value >= -1e-12).all()


@given(st.integers(0, 2**31), st.floats(0, 2), st.floats(0, 1))
def test_reverse_kl_force_of_a_gaussian_mixture(seed, weight, confidence):
    """Proposition 3, with the term of k = y that the paper's form leaves out: f_k = −½‖x − μ_k‖²."""
    generator = torch.Generator().manual_seed(seed)
    x, means = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((4,), (6, 4)))
    x.requires_grad_()
    labels = torch.tensor([1])
    logits = -0.5 * (x - means).square().sum(-1)[None]
    score = ClassifierScore("reverse_kl", weight, confidence)
    (force,) = torch.autograd.grad(logits, x, score.logit_gradient(logits.detach(), labels))
    pull = means - x  # ∇f_k
    p = logits.softmax(-1)[0]
    expected = (1 + weight * confidence) * pull[1] + weight * (1 - confidence) / 6 * pull.sum(0)
    expected = expected - (1 + weight) * (p[:, None] * pull).sum(0)
    torch.testing.assert_close(force, expected.detach(), rtol=1e-9, atol=1e-9)


@given(st.integers(0, 2**31))
def test_without_divergence_it_is_log_p(seed):
    logits, labels = predictions(seed)
    for score in (ClassifierScore(), ClassifierScore("jensen_shannon", 0.0), ClassifierScore("forward_kl", 0.0, 1.0)):
        torch.testing.assert_close(score.value(logits, labels), log_probability(logits, labels))
        one_hot = torch.nn.functional.one_hot(labels, 6)
        torch.testing.assert_close(score.logit_gradient(logits, labels), one_hot - logits.softmax(-1))


def test_target_keeps_its_confidence_on_the_label():
    labels = torch.tensor([0, 3])
    assert torch.equal(smoothed_target(labels, 4, 1.0), torch.nn.functional.one_hot(labels, 4).float())
    assert torch.equal(smoothed_target(labels, 4, 0.0), torch.full((2, 4), 0.25))
    torch.testing.assert_close(smoothed_target(labels, 4, 0.6).sum(-1), torch.ones(2))
    assert smoothed_target(labels.to("meta"), 4, 0.6).is_meta  # where the labels are


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("classes", [2, 1000, 100_000])
@pytest.mark.parametrize("spread", [0.0, 1.0, 1000.0])
def test_stays_finite_at_the_edges(name, dtype, classes, spread):
    """Half-precision logits, certain and clueless classifiers, few and many classes."""
    confidences = (0.0, 0.5, 0.999) if name == "forward_kl" else (0.0, 0.5, 1.0)
    logits, labels = predictions(0, 2, classes, spread, dtype)
    for confidence in confidences:
        score = ClassifierScore(name, 1.0, confidence, entropy_weight=0.1)
        gradient = score.logit_gradient(logits, labels)
        assert gradient.dtype == torch.float32
        assert gradient.isfinite().all() and score.value(logits, labels).isfinite().all()
        exact = score.logit_gradient(logits.double(), labels)
        torch.testing.assert_close(gradient.double(), exact, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"divergence": "hellinger"}, "divergence = 'hellinger': it must be one of none, reverse_kl"),
        ({"divergence_weight": -1.0}, "divergence_weight = -1.0: .* 0 or more"),
        ({"target_confidence": 1.2}, "target_confidence = 1.2: .* between 0 and 1"),
        ({"joint_temperature": math.nan}, "joint_temperature = nan"),
        ({"marginal_temperature": math.inf}, "marginal_temperature = inf"),
        ({"entropy_weight": math.inf}, "entropy_weight = inf"),
        ({"divergence": "forward_kl", "target_confidence": 1.0}, "infinite: choose a value below 1"),
    ],
)
def test_bad_parameters(inputs, message):
    with pytest.raises(ValueError, match=message):
        ClassifierScore(**inputs)
