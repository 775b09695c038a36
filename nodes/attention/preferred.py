"""The attention function that a checkpoint asks for (ComfyUI 0.40 on: INT8 attention), which an override switches off."""

from collections.abc import Callable
from typing import Any

import comfy.ldm.modules.attention
import torch

# A module in the attention of a network that holds what its checkpoint asks for; not there in older ComfyUI.
HOLDER = "ComfyAttention"


def preferred_attention(network: torch.nn.Module) -> tuple[Callable[..., Any] | None, bool]:
    """The function that all attention of a network is to use, if any; and whether there is none because they differ."""
    holder = getattr(comfy.ldm.modules.attention, HOLDER, None)
    if holder is None:
        return None, False
    functions = {module.function for module in network.modules() if isinstance(module, holder)}
    return (*functions, None)[0] if len(functions) == 1 else None, len(functions) > 1
