"""The training objective against its terms written out, and against torch's own divergences."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Categorical, kl_divergence

from guidance_core.calibration_objective import CalibrationObjective
from guidance_core.entropy_constraint import entropy_constraint
from guidance_core.smooth_ece import FORMS


def batch(seed: int = 0, count: int = 12, classes: int = 4, scale: float = 2.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (count,), generator=generator)


def written_out(logits, labels, ece_weight, beta, form, entropy_weight, bins=15):
    """All terms, picture by picture, in plain numbers."""
    rows = [[math.exp(z) for z in row] for row in logits.tolist()]
    rows = [[value / sum(row) for value in row] for row in rows]
    count, classes = len(rows), len(rows[0])
    cross_entropy = -sum(math.log(row[label]) for row, label in zip(rows, labels.tolist())) / count
    gaps = [(max(row), max(row) - (row.index(max(row)) == label)) for row, label in zip(rows, labels.tolist())]
    if form == "per_sample":
        ece = sum(math.sqrt(gap**2 + beta) for _, gap in gaps) / count
    else:
        ece = 0.0
        for b in range(bins):
            inside = [gap for sure, gap in gaps if b / bins < sure <= (b + 1) / bins]
            if inside:
                ece += len(inside) / count * math.sqrt((sum(inside) / len(inside)) ** 2 + beta)
    divergence = sum(1 / classes * math.log(1 / classes / value) for row in rows for value in row) / count
    return cross_entropy + ece_weight * ece + entropy_weight * divergence


@given(
    st.integers(0, 1000), st.floats(0, 10), st.floats(0, 1), st.sampled_from(FORMS), st.floats(0, 10), st.integers(2, 6)
)
def test_the_sum_of_its_terms(seed, ece_weight, beta, form, entropy_weight, classes):
    logits, labels = batch(seed, classes=classes)
    loss = CalibrationObjective(ece_weight, beta, form, entropy_weight)(logits, labels)
    assert loss.item() == pytest.approx(written_out(logits, labels, ece_weight, beta, form, entropy_weight), rel=1e-9)


def test_without_weights_it_is_cross_entropy():
    logits, labels = batch()
    loss = CalibrationObjective()(logits, labels)
    assert loss.item() == -Categorical(logits=logits).log_prob(labels).mean().item()


@pytest.mark.parametrize("form", FORMS)
def test_gradients(form):
    logits, labels = batch()
    objective = CalibrationObjective(0.7, 0.01, form, 0.4)
    assert torch.autograd.gradcheck(lambda z: objective(z, labels), logits.requires_grad_())


@given(st.integers(0, 1000), st.integers(2, 8), st.floats(0.01, 30))
def test_entropy_constraint_is_the_divergence_from_uniform(seed, classes, scale):
    logits, _ = batch(seed, classes=classes, scale=scale)
    uniform = Categorical(torch.full_like(logits, 1 / classes))
    expected = kl_divergence(uniform, Categorical(logits=logits)).mean()
    torch.testing.assert_close(entropy_constraint(logits), expected, rtol=1e-8, atol=1e-10)


def test_entropy_constraint_of_two_classes():
    """½ log(1 / (4p(1 − p))): 0 where nothing is known, more the surer the answer."""
    sure = torch.tensor([0.5, 0.6, 0.9, 0.999], dtype=torch.float64)
    of_each = torch.stack([entropy_constraint(torch.tensor([[p, 1 - p]]).log()) for p in sure.tolist()])
    torch.testing.assert_close(of_each.double(), -0.5 * (4 * sure * (1 - sure)).log(), rtol=1e-4, atol=1e-6)
    assert entropy_constraint(torch.full((3, 7), 5.0)).item() == pytest.approx(0, abs=1e-6)


def test_entropy_constraint_does_not_overflow():
    """A classifier that is entirely sure: its slope towards doubt stays finite."""
    logits = torch.tensor([[1000.0, 0.0]], requires_grad=True)
    loss = entropy_constraint(logits)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(500 - math.log(2), rel=1e-5)
    torch.testing.assert_close(gradient, torch.tensor([[0.5, -0.5]]))


@pytest.mark.parametrize("name", ["ece_weight", "ece_beta", "entropy_weight"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_bad_weights(name, value):
    with pytest.raises(ValueError, match=f"{name} = {value}: it must be a finite number of 0 or more"):
        CalibrationObjective(**{name: value})


def test_an_unknown_form():
    with pytest.raises(ValueError, match="ece_form = 'per_class': it must be one of per_sample, per_bin"):
        CalibrationObjective(ece_form="per_class")
