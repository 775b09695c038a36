"""A classifier's network without memory for its weights, on PyTorch's meta device, before the real one is built.

There, its shapes are held against the file's, and it reads a picture: so it shows what memory and how many layers it would
take. Configurations and files can ask for any.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .claims import ANY, TooMuch

Network = TypeVar("Network", bound=torch.nn.Module)
LARGEST_PICTURE = 3 * 4096**2  # numbers of what a network is given of one picture, and of what that is made of
LARGEST_TENSOR = 2**28  # numbers: 1 GB; attention of 16 heads to pictures of 1024 × 1024 in patches of 16 × 16
FEW_NUMBERS = 2**30  # that a network may make of one picture: 4 GB, which a gradient keeps,
NUMBERS = 300  # or for each weight: Donut's encoder makes 217 of 2560 × 1920 pixels, most others less than 20
LARGEST_BUFFER = 2**24  # numbers of tables that are in no file: masks and positions
OPERATIONS = 10  # to make a weight; transformers and torchvision take 2 to 6
MORE_OPERATIONS = 1000  # of any network


class Bounded(TorchDispatchMode):
    """Within, of this thread, operations with larger results or after so many raise TooMuch, and those that make more numbers
    in all. what: for the message."""

    def __init__(self, what: str, largest: int, operations: int = ANY, numbers: int = ANY) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # of PyTorch
        self.what, self.largest, self.left, self.numbers = what, largest, operations, numbers

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.left -= 1
        is_new = not any(returned.alias_info for returned in func._schema.returns)  # type: ignore[attr-defined]
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, torch.Tensor) and part.numel() > self.largest:
                raise TooMuch(
                    f"{self.what} would take a tensor of {tuple(part.shape)}; {self.largest:,} numbers are allowed."
                )
            if isinstance(part, torch.Tensor) and is_new:
                self.numbers -= part.numel()
        if self.numbers < 0:
            raise TooMuch(f"{self.what} would make far more numbers of a picture than its weights are.")
        if self.left < 0:
            raise TooMuch(f"{self.what} has far more layers than its files have weights.")
        return result


def on_meta(build: Callable[[], Network], weights: int) -> Network:
    """The network that `build` makes, on the meta device. Raises ValueError where it has far more than so many weights."""
    with Bounded("the network", ANY, MORE_OPERATIONS + OPERATIONS * weights), torch.device("meta"):
        return build().eval()


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


def prepared(prepare: Callable[..., Any], example: torch.Tensor) -> Any:
    """What `prepare` makes of a picture on the meta device. Raises ValueError where that is huge, or is made of what is."""
    with torch.no_grad(), Bounded("a picture, prepared for the network,", LARGEST_PICTURE):
        return prepare(example)


def rehearse(call: Callable[..., Any], weights: int, *inputs: torch.Tensor, **named: torch.Tensor) -> bool:
    """Calls a network of so many weights on the meta device; whether it runs there. Raises ValueError where it would make huge
    tensors, or far too many."""
    try:
        with torch.no_grad(), Bounded("the network", LARGEST_TENSOR, numbers=max(FEW_NUMBERS, NUMBERS * weights)):
            call(*inputs, **named)
    except (
        RuntimeError
    ):  # It decides by numbers, which this device has not; or does not fit, as will turn out where it has.
        return False
    return True
