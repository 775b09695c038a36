"""Softplus in the place of ReLU, for any network and without touching its modules.

Off-the-shelf classifier guidance, https://arxiv.org/abs/2310.11311: ReLU's gradient is piecewise constant and zero on
half of its inputs, softplus(βx)/β has a smooth one. The network's predictions stay nearly the same for large β.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from .number_range import check_number

_RELUS = {F.relu, F.relu_, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_}


class SmoothReLU(TorchFunctionMode):
    """Within `with SmoothReLU(beta):` every ReLU of this thread is softplus(β·x)/β; β > 0, ReLU as β → ∞.

    In-place ReLUs become out-of-place, which their callers, who use what is returned, do not notice.
    """

    def __init__(self, beta: float):
        super().__init__()
        check_number("softplus_beta", beta)
        if beta <= 0:
            raise ValueError(f"softplus_beta = {beta}: it must be a finite number above 0.")
        self.beta = beta

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _RELUS:
            values = args[0] if args else kwargs["input"]
            return F.softplus(values, beta=self.beta)
        return function(*args, **kwargs)
