"""What ERG did in a sampling, and the words for where it did nothing: it never is silent about that."""

from dataclasses import dataclass

from ..common import PercentWindow


@dataclass
class Effect:
    """Whether the sampling that is running had a weak branch, in the window of steps, and changed it."""

    weak: bool = False
    in_time: bool = False
    changed: bool = False

    def why_not(self, window: PercentWindow) -> str:
        """Why a whole sampling was left as it was."""
        if not self.weak:
            return "it has no negative branch. Set cfg above 1, or use a guider with a negative input."
        if not self.in_time:
            return (
                f"no step lies between start_percent = {window.start} and end_percent = {window.end}. "
                "That is as it should be where another sampler does the other steps."
            )
        return "another node skipped the network in each of its steps."


def check_changed(calls: int, kind: str, network: str) -> None:
    """Raises RuntimeError where an evaluation changed none of its attention calls. kind: of attention that it was to change."""
    if calls:
        return
    if kind != "all":
        raise RuntimeError(
            f"attention = '{kind}': the selected layers of {network} have no {kind}-attention. "
            "Choose 'all', or other layers."
        )
    raise RuntimeError(
        f"ERG changed no attention of {network}: another node replaces the selected layers or the attention "
        "override. Take that node out, or choose other layers."
    )
