"""What attention is beneath an override of ours: another node's, the checkpoint's, or ComfyUI's."""

from collections.abc import Callable
from functools import partial
from typing import Any

from .reach import REACHED


def stays_in_force(previous: Callable[..., Any], options: dict[str, Any]) -> bool:
    """Whether an override that was there before is called with attention of these transformer options. Others do not see what
    gets its options from this pack alone."""
    return REACHED not in options or isinstance(previous, OurOverride)


class OurOverride:
    """previous: the override that was there before, which stays in force. preferred: the attention function that the network's
    checkpoint asks for in the place of ComfyUI's, if any."""

    previous: Callable[..., Any] | None
    preferred: Callable[..., Any] | None

    def of_others(self, attention: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
        """What attention is without this override. options: the transformer options of a call."""
        if self.previous is not None and stays_in_force(self.previous, options):
            return partial(self.previous, attention)  # it may call ComfyUI's attention itself
        # ComfyUI drops a checkpoint's preference as soon as there is an override.
        return self.preferred or attention
