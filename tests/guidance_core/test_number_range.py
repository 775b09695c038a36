"""Numbers that leave single precision are refused where they are given, rather than as a black picture or in PyTorch's words."""

import pytest

from guidance_core.attention_energy import AttentionEnergy
from guidance_core.classifier_score import ClassifierScore
from guidance_core.condition_annealing import ConditionAnnealing
from guidance_core.number_range import LARGEST, check_number, whole_number
from guidance_core.smooth_relu import SmoothReLU


@pytest.mark.parametrize(
    ("takes", "name"),
    [
        (AttentionEnergy, "temperature"), (AttentionEnergy, "alpha"), (AttentionEnergy, "step_size"),
        (ConditionAnnealing, "noise_scale"), (ClassifierScore, "entropy_weight"), (ClassifierScore, "joint_temperature"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [1e38, 1e300])
def test_strengths_have_an_end(takes, name, value):
    with pytest.raises(ValueError, match=f"{name} = .*it must be a finite number of .* or less"):
        takes(**{name: value})


def test_sharpness_has_one_too():
    with pytest.raises(ValueError, match="softplus_beta = 1e.300: it must be a finite number of 1000000 or less"):
        SmoothReLU(1e300)


def test_iterations_that_would_not_end():
    with pytest.raises(
        ValueError, match="iterations = 1000000: it must be a whole number of 1 or more, and at most 1000"
    ):
        AttentionEnergy(iterations=1_000_000)


@pytest.mark.parametrize(("step_size", "most"), [(2.5, 17), (3.0, 9), (101.0, 1)])
def test_a_query_grows_a_thousandfold_at_most(step_size, most):
    """By step_size − 1 in each iteration, where that is above 1."""
    AttentionEnergy(step_size=step_size, iterations=most)
    with pytest.raises(ValueError, match=f"step_size = {step_size:g}, iterations = {most + 1}: .* a query grows"):
        AttentionEnergy(step_size=step_size, iterations=most + 1)
    AttentionEnergy(step_size=2.0, iterations=1000)


@pytest.mark.parametrize("value", [0, 1.5, 11, float("nan"), float("inf"), 2**2000])
def test_what_is_no_whole_number_of_a_range(value):
    with pytest.raises(ValueError, match="x = .*: it must be a whole number of 1 or more, and at most 10"):
        whole_number("x", value, 1, 10)


def test_whole_numbers():
    found = [whole_number("x", value, 1, 10) for value in (1, 2.0, 10)]
    assert found == [1, 2, 10] and all(type(value) is int for value in found)
    assert type(AttentionEnergy(iterations=2.0).iterations) is int


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 2**2000, -(2**2000)])
def test_what_is_no_number_of_use(value):
    with pytest.raises(ValueError, match="x = .*it must be a finite number"):
        check_number("x", value)


def test_what_is_too_low_is_not_called_infinite():
    with pytest.raises(ValueError, match=r"x = -2000000.0: it must be a finite number of -1e\+06 or more"):
        check_number("x", -2e6)


@pytest.mark.parametrize(
    ("value", "lowest", "limit"),
    [
        (float("inf"), -LARGEST, ""), (float("-inf"), -LARGEST, ""), (float("nan"), 0, " of 0 or more"), (-1, 0, " of 0 or more"),
        (2, 0, " of 1 or less"), (float("inf"), 0, " of 0 or more"),
    ],
)  # fmt: skip
def test_the_limit_that_a_message_names(value, lowest, limit):
    with pytest.raises(ValueError) as error:
        check_number("x", value, lowest, highest=1)
    assert str(error.value) == f"x = {value}: it must be a finite number{limit}."


def test_ends_belong_to_the_range():
    for value in (0, 1, 0.5):
        check_number("x", value, lowest=0, highest=1)
    for value in (-LARGEST, LARGEST):
        check_number("x", value)
