"""How often a value of the device is waited for, counted on a CPU, where nothing waits."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

OPERATORS = ("item", "_local_scalar_dense", "is_nonzero", "nonzero", "_unique2", "equal", "masked_select")
# What dispatches no operator on a CPU.
METHODS = {getattr(torch.Tensor, name) for name in ("tolist", "cpu", "numpy", "__array__")}


class CountWaits:
    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        with _Methods(self), _Operators(self):
            yield


class _Operators(TorchDispatchMode):
    def __init__(self, counter: CountWaits) -> None:
        super().__init__()
        self.counter = counter

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counter.count += function.__name__.partition(".")[0] in OPERATORS
        return function(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    def __init__(self, counter: CountWaits) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.counter.count += function in METHODS
        return function(*args, **(kwargs or {}))
