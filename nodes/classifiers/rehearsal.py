"""A classifier's network without memory for its weights, on PyTorch's meta device, before the real one is built.

There, its shapes are held against the file's, and it reads one picture: so it shows what memory and how many layers it would
take. Configurations and files can ask for any.
"""

from collections.abc import Callable, Mapping

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .claims import TooMuch

LARGEST_PICTURE = 3 * 4096**2  # numbers of what a network is given of one picture, and of what that is made of
LARGEST_TENSOR = 2**28  # numbers: 1 GB; attention of 16 heads to pictures of 1024 × 1024 in patches of 16 × 16
LARGEST_BUFFER = 2**24  # numbers of tables that are in no file: masks and positions
OPERATIONS = 100  # of a weight, to make it; a network of few has OPERATIONS_OF_ANY
OPERATIONS_OF_ANY = 20_000


class Bounded(TorchDispatchMode):
    """Within, of this thread, operations with larger results or after so many raise TooMuch. what: for the message."""

    def __init__(self, what: str, largest: int, operations: float = float("inf")):
        super().__init__()
        self.what, self.largest, self.left = what, largest, operations

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.left -= 1
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, torch.Tensor) and part.numel() > self.largest:
                raise TooMuch(
                    f"{self.what} would take a tensor of {tuple(part.shape)}; {self.largest:,} numbers are allowed."
                )
        if self.left < 0:
            raise TooMuch(f"{self.what} has far more layers than its files have weights.")
        return result


def rehearsed_network(build: Callable[[], torch.nn.Module], held: Mapping[str, torch.Size]) -> torch.nn.Module:
    """The network on the meta device. held: the shapes of a file's weights, which a network cannot exceed.

    Raises ValueError for one that has a weight of the same name and another shape, or more weights than the file."""
    with Bounded("the network", 2**62, OPERATIONS_OF_ANY + OPERATIONS * len(held)), torch.device("meta"):
        network = build()
    check_fits(network, held)
    return network.eval()


def check_fits(network: torch.nn.Module, held: Mapping[str, torch.Size]) -> None:
    """Raises ValueError where a network is not that of a file's weights, by their shapes and their sum."""
    expected = network.state_dict()
    for key, weight in expected.items():
        if key in held and held[key] != weight.shape:
            raise ValueError(
                f"its weight '{key}' is {tuple(held[key])}, and its network would have {tuple(weight.shape)}."
            )
    numbers, there = (sum(weight.numel() for weight in network.parameters()), sum(map(torch.Size.numel, held.values())))
    if numbers > 2 * there:  # some share weights
        raise TooMuch(f"its network would have {numbers:,} numbers, and its weights are {there:,}.")
    tables = sum(buffer.numel() for name, buffer in network.named_buffers() if name not in expected)
    if tables > max(LARGEST_BUFFER, there):
        raise TooMuch(f"its network would make tables of {tables:,} numbers beside its {there:,} weights.")


def rehearse(prepare: Callable, network: Callable, *example: torch.Tensor) -> None:
    """Lets a network on the meta device read what `prepare` makes of an example. Raises ValueError where that takes too much."""
    with torch.no_grad():
        with Bounded("a picture, prepared for the network,", LARGEST_PICTURE):
            prepared = prepare(*(part.to("meta") for part in example))
        with Bounded("a picture in the network", LARGEST_TENSOR):
            network(prepared)
