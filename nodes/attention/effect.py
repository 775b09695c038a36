"""What ERG did in a sampling, and the words for where it did nothing: it never is silent about that."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from ..common import PercentWindow


@dataclass
class Effect:
    """Whether the sampling that is running had a weak branch, in the window of steps, and changed it."""

    weak: bool = False
    in_time: bool = False
    changed: bool = False
    _said: set[str] = field(default_factory=set)

    def why_not(self, window: PercentWindow, own: bool) -> str:
        """Why a whole sampling was left as it was. own: whether the weak branch was to be one of its own."""
        if not self.weak and own:
            return "its sampler asked for no prediction in the way of ComfyUI's guiders."
        if not self.weak:
            return (
                "no evaluation of it was one of a negative branch. Set cfg above 1, or scale above 0 for a weak branch of its "
                "own, or use a guider with a negative input."
            )
        if not self.in_time:
            return (
                f"no step lies between start_percent = {window.start} and end_percent = {window.end}. "
                "That is as it should be where another sampler does the other steps."
            )
        return "another node skipped the network in each of its steps."

    def say_once(self, message: str) -> None:
        """Logs a warning, once in a sampling."""
        if message not in self._said:
            self._said.add(message)
            logging.warning("Entropy Rectifying Guidance: %s", message)


def check_changed(changed: bool, kind: str, other_kind: bool, network: str, others: Callable[[], str]) -> None:
    """Raises RuntimeError where an evaluation changed none of its attention.

    kind: of attention that it was to change. other_kind: whether the selected layers made calls of another kind.
    others: gives the names of the nodes that may have done it.
    """
    if changed:
        return
    if other_kind:
        raise RuntimeError(
            f"attention = '{kind}': the selected layers of {network} have no {kind}-attention, or another node replaces it. "
            "Choose 'all', or other layers."
        )
    raise RuntimeError(
        f"ERG changed no attention of {network}: another node replaces the selected layers or the attention "
        f"override ({others()}). Take that node out, or choose other layers."
    )
