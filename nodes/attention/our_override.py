"""What attention is beneath an override of ours: another node's, the checkpoint's, or ComfyUI's."""

from collections.abc import Callable
from functools import partial
from typing import Any

from .reach import REACHED


class OurOverride:
    """previous: the override that was there before, which stays in force. preferred: the attention function that the network's
    checkpoint asks for in the place of ComfyUI's, if any."""

    previous: Callable[..., Any] | None
    preferred: Callable[..., Any] | None

    def of_others(self, attention: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
        """What attention is without this override. options: the transformer options of a call."""
        if self.previous is not None and (REACHED not in options or isinstance(self.previous, OurOverride)):
            return partial(self.previous, attention)  # it may call ComfyUI's attention itself
        # ComfyUI drops a checkpoint's preference as soon as there is an override.
        return self.preferred or attention
