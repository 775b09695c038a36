"""Arithmetic of networks, counted by PyTorch."""

from collections.abc import Callable

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def flops(run: Callable[[], object]) -> int:
    """Of matrix products, convolutions and attention; a multiplication and an addition are two."""
    # Of a CPU's kernels PyTorch counts the plain one alone.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops()
