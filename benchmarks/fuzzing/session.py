"""One process that runs graph after graph, with one cache, and looks after each whether it is as it was before the first."""

from pathlib import Path

import torch

from .custom_nodes.ends_of_graphs import tensors
from .executor import Executor, prompt_server
from .folders import use_folders
from .outcome import FAILED, FINISHED, NOT_FINITE, NOT_OURS, STOPPED, Outcome
from .state import Shared
from .wiring import BEGINNING, without_ours

# Where in what the loaders give the patchers and networks are that all graphs share.
LOADED = (
    ["demo", 0],
    ["demo", 1],
    ["demo", 2],
    ["classes", 0],
    ["classifier", 0],
    ["classes classifier", 0],
    ["noise-aware classifier", 0],
)


class Session:
    def __init__(self, root: Path):
        use_folders(root)
        self._server = prompt_server()
        self._executor = Executor(self._server)
        self._shared = self._load()
        self._latent = self._shared.latent()
        self._before = self._shared.left_behind()

    def run(self, graph: dict, check_latent: bool = True) -> Outcome:
        """What came of a graph; FAILED where it left anything behind as well."""
        outcome, _ = self._executor.run(graph)
        if outcome.why.startswith((NOT_FINITE, NOT_OURS)) and self._is_of_comfyui(graph, outcome):
            kind = FINISHED if outcome.why.startswith(NOT_FINITE) else STOPPED
            outcome = Outcome(kind, f"{outcome.why}, as without our nodes")
        left = self._left_behind(check_latent)
        return Outcome(FAILED, f"left behind: {left}; it {outcome.kind} {outcome.why}") if left else outcome

    def _is_of_comfyui(self, graph: dict, outcome: Outcome) -> bool:
        """Whether ComfyUI alone does the same: a few of its samplers draw what is not finite with schedules that end in two
        zeros, and some have no room for the highest seed."""
        return self._executor.run(without_ours(graph))[0] == outcome

    def drawn_alike(self, graph: dict, outcome: Outcome) -> Outcome:
        """The outcome of a graph that has run; FAILED where it draws something else with all of it cached, or nothing."""
        (_, cached), (_, anew) = self._executor.run(graph), Executor(self._server).run(graph)
        common = cached.keys() & anew.keys()
        pairs = [(name, [*tensors(cached[name])], [*tensors(anew[name])]) for name in sorted(common)]
        differs = [name for name, one, other in pairs if len(one) != len(other) or not all(map(_are_equal, one, other))]
        # Which ends a graph that stops has reached before goes by ComfyUI's order of nodes, and by what is cached.
        missing = [] if outcome.kind == STOPPED else sorted(cached.keys() ^ anew.keys())
        return (
            Outcome(FAILED, f"not drawn alike without a cache: {differs}{missing}") if differs or missing else outcome
        )

    def _load(self) -> Shared:
        graph = {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in BEGINNING.items()}
        ends = {str(link): {"class_type": "Kept", "inputs": {"value": link}} for link in LOADED}
        outcome, kept = self._executor.run(graph | ends)
        if len(kept) != len(LOADED):
            raise RuntimeError(f"The loaders gave {len(kept)} of {len(LOADED)} outputs: {outcome}")
        model, clip, vae, classes, *classifiers = (kept[str(link)] for link in LOADED)
        patchers = (model, clip.patcher, vae.patcher, classes, *(one.patcher for one in classifiers))
        return Shared(model, clip, patchers)

    def _left_behind(self, check_latent: bool) -> str:
        """What differs from before the first graph, in words."""
        now = self._shared.left_behind()
        differs = [f"{name}: {now[name]}" for name, before in self._before.items() if before != now[name]]
        if check_latent and not torch.equal(self._shared.latent(), self._latent):
            differs.append("the same seed draws another latent")
        return "; ".join(differs)


def _are_equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """To the bit, NaN as well: some of ComfyUI's samplers draw it by themselves."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
