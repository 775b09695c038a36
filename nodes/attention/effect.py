"""What ERG did in a sampling, and the words for where it did nothing: it never is silent about that."""

import logging
import math
from collections.abc import Callable, Set
from dataclasses import dataclass, field

from comfy.samplers import CFGGuider

from ...guidance_core.attention_energy import AttentionEnergy
from ..common.percent_window import PercentWindow
from ..feedback import StepCount
from ..sampling.condition_names import NEGATIVE, POSITIVE
from .network_call import NetworkCall

NAME = "Entropy Rectifying Guidance"


@dataclass
class Effect:
    """Of the sampling that is running.

    weak, in_time: whether it had a weak branch, and that in the window of steps; one of its own is there where the guider's
    prediction is asked for. evaluated: whether the network was evaluated for such a prediction. spared: for each evaluation
    how many conditions it took less than it was asked for, by blocks that ran once for two or by another node's cache.
    """

    weak: bool = False
    in_time: bool = False
    evaluated: bool = False
    spared: list[float] = field(default_factory=list)
    _asked: list[int] = field(default_factory=list)  # the conditions of each evaluation
    _layers: set[int] = field(default_factory=set)  # those that were changed
    _of_layers: int = 0  # how many the network has
    _steps: StepCount = field(default_factory=StepCount)
    _said: set[str] = field(default_factory=set)

    @property
    def changed(self) -> bool:
        return bool(self._layers)

    def note_evaluation(self, call: NetworkCall) -> None:
        self._asked.append(len(call.options.get("cond_or_uncond", ())) or 1)
        self._steps.note(call.inputs[1], call.options, False)

    def note_change(self, call: NetworkCall, layers: Set[int], of: int) -> None:
        """layers: the numbers of those that an evaluation changed, of so many."""
        if layers:
            self._layers |= layers
            self._of_layers = of
            self._steps.note(call.inputs[1], call.options, True)

    def what(self) -> str:
        """For a sampling that was changed."""
        changed, steps = self._steps.read()
        evaluations = (sum(self._asked) - sum(self.spared)) / steps
        return f"{len(self._layers)} of {self._of_layers} layers, {changed} of {steps} steps, {evaluations:.1f} evaluations a step"

    def why_not(self, window: PercentWindow, own: bool, guider: CFGGuider) -> str:
        """Why a whole sampling was left as it was. own: whether the weak branch was to be one of its own."""
        if not self.weak and own:
            return "its sampler asked for no prediction in the way of ComfyUI's guiders."
        if not self.weak and guider.conds.keys() == {POSITIVE, NEGATIVE} and math.isclose(guider.cfg, 1):
            return "cfg is 1: there is no negative branch. Set scale above 0, or cfg above 1."
        if not self.weak:
            return (
                "no evaluation of it was one of a negative branch. Set cfg above 1, or scale above 0 for a weak branch of its "
                "own, or use a guider with a negative input."
            )
        if not self.in_time:
            return window.why_no_step
        if self.evaluated:
            return (
                f"its guider ({type(guider).__name__}) or another node evaluates the model without ComfyUI's calc_cond_batch, "
                "which leaves no place for a weak branch of its own. Use a guider of ComfyUI's, or take that node out."
            )
        return "another node skipped the network in each of its steps."

    def say_once(self, message: str) -> None:
        """Logs a warning, once in a sampling."""
        if message not in self._said:
            self._said.add(message)
            logging.warning("%s: %s", NAME, message)


def why_ordinary(energy: AttentionEnergy) -> str:
    """Why attention of an energy that is ordinary stays as it is."""
    if energy.flatness == 0:
        return "flatness is 0. Set it above 0, or to -1 for temperature to count."
    return "temperature is 1. Set it below 1."


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
