"""What a node says on itself after a sampling, such as "2 of 12 layers, 20 of 20 steps, 1.6 evaluations a step".

ComfyUI's server sends the text to the client that asked for the pictures, and its frontend keeps it on the node until the next
one, whether or not the node itself ran again. Where there is no server, or no client to tell, nothing is said.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from traceback import walk_tb
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..guidance_core.sampling_steps import step_taken

# What the schema of a node asks for that has something to say. It is also `not_idempotent`: otherwise ComfyUI's cache would run
# one of two nodes with the same inputs for both, or one that is gone from the graph.
HIDDEN = (io.Hidden.unique_id, io.Hidden.dynprompt)
AS_TEXT = str.maketrans("<>", "‹›")  # the frontend takes it for HTML, and a class of a classifier may have any name

SAID = "entropy_guidance_said"  # an attribute of errors
OUR_PACKAGE = __name__.removesuffix(".nodes.feedback")


@dataclass(frozen=True)
class Feedback:
    """node: the id that the node has in the artist's graph, if it runs in one."""

    node: str | None = None

    @classmethod
    def of(cls, node: type[io.ComfyNode]) -> "Feedback":
        """Of a node that is running. In a loop ComfyUI runs copies of it, under ids that the graph does not have."""
        unique_id, prompt = (getattr(node.hidden, hidden.name, None) for hidden in HIDDEN)
        return cls(unique_id if prompt is None else prompt.get_display_node_id(unique_id))

    def say(self, text: str) -> None:
        """Sends it without waiting for anything."""
        # Looked up rather than imported: a host without a server may not have what that needs.
        server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
        send, client = (getattr(server, name, None) for name in ("send_progress_text", "client_id"))
        if send is not None and None not in (self.node, client):
            send(text.translate(AS_TEXT), self.node, client)

    def say_without_effect(self, why_not: str) -> None:
        self.say(f"No effect: {why_not}")

    def warn_without_effect(self, effect: str, why_not: str) -> None:
        """Of a whole sampling, in the log too: it may be a script's, which has no node to look at."""
        logging.warning("%s had no effect in this sampling: %s", effect, why_not)
        self.say_without_effect(why_not)

    @contextmanager
    def saying_errors(self) -> Iterator[None]:
        """Within, an error that this pack raises is this node's doing, whichever node runs it. The innermost one says it."""
        try:
            yield
        except (RuntimeError, ValueError) as error:
            if SAID not in vars(error) and _is_ours(error):
                vars(error)[SAID] = True
                self.say(f"Stopped: {error}")
            raise


def _is_ours(error: Exception) -> bool:
    """Whether it was raised in this pack's code, rather than in what that called."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").startswith(f"{OUR_PACKAGE}.")


@dataclass
class StepCount:
    """In how many steps of a sampling something was done. It waits for the device when it is read, and not before."""

    _done: list[Tensor] = field(default_factory=list)  # sigmas of evaluations
    _others: list[Tensor] = field(default_factory=list)
    _schedule: Tensor | None = None

    def note(self, sigma: Tensor, options: dict[str, Any], done: bool) -> None:
        """An evaluation at sigma, [B]. options: its transformer options. done: whether it was done there."""
        (self._done if done else self._others).append(sigma)
        self._schedule = options.get("sample_sigmas")

    def read(self) -> tuple[int, int]:
        """The steps in which it was done, and all of them: those with an evaluation where no schedule was told."""
        done, others = ([sigma.flatten()[0].item() for sigma in sigmas] for sigmas in (self._done, self._others))
        schedule = [] if self._schedule is None else self._schedule.tolist()
        if len(schedule) < 2:
            return len({*done}), len({*done, *others})
        return len({step_taken(sigma, schedule) for sigma in done}), len(schedule) - 1
