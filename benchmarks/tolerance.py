"""How far two computations of the same thing may lie apart, from the number format alone.

Kernels differ by instruction set, number of threads and batch size: they add up in another order, and each sum is rounded
otherwise, by a share ε of its size (2⁻²³ in float32). Networks carry that on and enlarge it. What agrees in the first half
of its digits, to a share √ε of the largest value, is the same formula: rounding would have to grow 1/√ε-fold (3,000 in
float32) to look like another one, and a wrong formula shows in the leading digits.
"""

import torch


def agree(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether tensors of one shape lie within √ε of the largest expected value; ε of the coarser of their formats."""
    return _largest_difference(actual, expected) <= _tolerance(actual, expected)


def assert_agree(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Raises AssertionError, with numbers, where two tensors do not `agree`."""
    assert actual.shape == expected.shape, f"shapes {[*actual.shape]} and {[*expected.shape]}"
    difference, tolerance = _largest_difference(actual, expected), _tolerance(actual, expected)
    assert difference <= tolerance, f"they lie {difference:.3g} apart, and rounding explains {tolerance:.3g}"


def _largest_difference(actual, expected) -> float:
    return (actual.double() - expected.double()).abs().max().item()


def _tolerance(actual, expected) -> float:
    epsilon = max(torch.finfo(tensor.dtype).eps for tensor in (actual, expected))
    return epsilon**0.5 * expected.double().abs().max().item()
