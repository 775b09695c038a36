"""Sees a sampling of ComfyUI's while it runs, and changes no bit of it.

Its wrappers are around those of all other nodes, for this sampling alone. What they see stays on the device until the sampling is
over: no step waits for it.

Guidance is seen in every step. Attention entropy is measured in at most `MEASURED_STEPS` of them, evenly spread, the first and the
last among them. Of a sampler that evaluates more than once a step the first counts.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.model_base import BaseModel
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy.samplers import CFGGuider
from comfy.utils import unpack_latents

from ...guidance_core.guidance_measures import size_and_angle
from ...guidance_core.sampling_steps import spread_steps, step_taken
from ..attention.entropy_probe import Entropies, EntropyProbing
from ..attention.network_call import NetworkCall
from ..classifiers.confidence import in_words
from ..classifiers.score_gradient import OBSERVERS, ScoreGradient
from ..sampling.condition_names import ConditionNames, Conditions, is_positive, place_of_positive
from .sampling_record import ClassifierCurves, Curve, Glimpse, Map, SamplingRecord
from .small_picture import small_picture

KEY = "entropy_guidance_record"
MEASURED_STEPS = 8
PICTURES = 8
# Entropies by branch, layer and step.
Cells = dict[tuple[str, int, int], list[float]]
OWN_BRANCH = "weak (ERG)"  # how the names of branches begin that no guider has


@dataclass
class _Prediction:
    """One of the guider's, while it is made. measured: whether its attention is. running: whether that is so right now."""

    measured: bool
    running: bool = False
    positive: torch.Tensor | None = None
    entropies: list[Entropies] = field(default_factory=list)


class Recording:
    """Of one sampling."""

    def __init__(self, guider: CFGGuider, sigmas: torch.Tensor, latent_shapes: list[Any] | None) -> None:
        self._names = ConditionNames(guider)
        self._latent_format = guider.model_patcher.get_model_object("latent_format")
        self._sigmas, self._shapes = sigmas, latent_shapes or ()
        self._to_measure = frozenset(spread_steps(len(sigmas) - 1, MEASURED_STEPS))
        self._to_show = frozenset(spread_steps(len(sigmas) - 1, PICTURES))
        self._probing = EntropyProbing(guider.model_options["transformer_options"])
        self._step = 0  # or, in a sampler of two evaluations a step, the next one already
        self._now: _Prediction | None = None
        self._last: torch.Tensor | None = None
        # With the sigma of each.
        self._guidance: list[tuple[Any, ...]] = []
        self._entropies: list[tuple[torch.Tensor, list[Entropies]]] = []
        self._classifiers: dict[ScoreGradient, list[tuple[Any, ...]]] = defaultdict(list)
        self._shown: list[tuple[int, torch.Tensor]] = []

    @contextmanager
    def watching(self, model_options: dict[str, Any]) -> Iterator[None]:
        """Within, the wrappers are in the model options of a sampling, before all others. Other packs may sample several times
        with these options.

        A transformer option more would have torch.compile compile a network again.
        """
        wrappers = model_options["transformer_options"].setdefault("wrappers", {})
        observers = model_options.get(OBSERVERS, ())
        before = dict(wrappers)
        for kind, wrapper in (
            (WrappersMP.PREDICT_NOISE, self.predict),
            (WrappersMP.CALC_COND_BATCH, self.evaluate),
            (WrappersMP.APPLY_MODEL, self.measure),
        ):
            others = wrappers.get(kind, {})
            wrappers[kind] = {KEY: [wrapper, *others.get(KEY, ())], **{k: w for k, w in others.items() if k != KEY}}
        model_options[OBSERVERS] = (*observers, self.see_classifier)
        try:
            yield
        finally:
            wrappers.clear()
            wrappers.update(before)
            model_options[OBSERVERS] = observers

    def predict(
        self,
        executor: WrapperExecutor,
        x: torch.Tensor,
        timestep: torch.Tensor,
        model_options: dict[str, Any] = {},
        seed: int | None = None,
    ) -> torch.Tensor:
        """A wrapper for ComfyUI's PREDICT_NOISE."""
        self._now = now = _Prediction(self._step in self._to_measure and self._probing.why_not is None)
        guided = executor(x, timestep, model_options, seed)
        self._now = None
        sigma = timestep[:1].clone()
        # Context windows evaluate parts of a video, of which there is no prediction as a whole.
        if now.positive is not None and now.positive.shape == guided.shape:
            self._guidance.append((sigma, *size_and_angle(self._first(guided), self._first(now.positive))))
        if now.entropies:
            self._entropies.append((sigma, now.entropies))
        return guided

    def evaluate(
        self,
        executor: WrapperExecutor,
        model: BaseModel,
        conds: Conditions,
        x: torch.Tensor,
        timestep: torch.Tensor,
        model_options: dict[str, Any],
    ) -> Any:
        """A wrapper for ComfyUI's CALC_COND_BATCH: the first in a prediction that has the positive condition counts, and not
        what other nodes evaluate after it."""
        now = self._now
        if now is None or now.positive is not None:
            return executor(model, conds, x, timestep, model_options)
        names = self._names.of(conds)
        if now.measured:
            model_options = self._names.tell(conds, model_options)
        now.running = now.measured
        predictions = executor(model, conds, x, timestep, model_options)
        now.running = False
        positive = place_of_positive(names)
        if positive is not None:
            now.positive = predictions[positive].clone()  # other nodes may write into it
        return predictions

    def measure(
        self,
        executor: WrapperExecutor,
        x: torch.Tensor,
        t: torch.Tensor,
        c_concat: torch.Tensor | None = None,
        c_crossattn: torch.Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] = {},
        **conditions: Any,
    ) -> Any:
        """A wrapper for ComfyUI's APPLY_MODEL."""
        call = NetworkCall(executor, (x, t, c_concat, c_crossattn), control, transformer_options, conditions)
        now = self._now
        if now is None or not now.running:
            return call.run()
        prediction, found = self._probing.run(call)
        if found is not None:
            now.entropies.append(found)
        return prediction

    def see_classifier(
        self, source: ScoreGradient, sigma: torch.Tensor, gradient: torch.Tensor, log_p: torch.Tensor
    ) -> None:
        """One of the `OBSERVERS`."""
        self._classifiers[source].append((sigma[:1].clone(), log_p.exp(), gradient.flatten(1).norm(dim=1)))

    def counting(self, callback: Callable[..., Any] | None) -> Callable[..., Any]:
        """A sampler's callback, which also tells that a step is over."""

        def end_of_step(step: int, x0: torch.Tensor, *args: Any) -> Any:
            self._step, self._last = step + 1, self._first(x0)
            if step in self._to_show:
                self._shown.append((step, first_picture(self._last).clone()))
            return None if callback is None else callback(step, x0, *args)

        return end_of_step

    def _first(self, latent: torch.Tensor) -> torch.Tensor:
        """Of several latents in one (a video with its sound) the first."""
        return unpack_latents(latent, self._shapes)[0] if len(self._shapes) > 1 else latent

    def finish(self, output: torch.Tensor) -> SamplingRecord:
        """What was seen. output: of the sampling. Waits for the device."""
        drawn = [self._first(output)]
        if self._last is not None:
            drawn.append(self._latent_format.process_out(self._last))
        small = [(step, small_picture(latent, self._latent_format)) for step, latent in self._shown]
        size, angle = self._curves(self._guidance)
        classifiers = tuple(self._curves_of_classifier(*each) for each in self._classifiers.items())
        return SamplingRecord(
            len(self._sigmas) - 1, size, angle, self._maps(), self._probing.why_not, classifiers,
            tuple((step, picture) for step, picture in small if picture is not None), self._latent_format,
            tuple(map(Glimpse.of, drawn)),
        )  # fmt: skip

    def _first_of_steps(self, sigmas: list[torch.Tensor]) -> dict[int, int]:
        """For each step of the sampling, in order, the place of its first sigma."""
        schedule = self._sigmas.tolist()
        steps = [step_taken(sigma, schedule) for sigma in torch.cat(sigmas).tolist()]
        return {step: steps.index(step) for step in sorted({*steps})}

    def _curves(self, seen: list[tuple[Any, ...]]) -> tuple[Curve | None, Curve | None]:
        """Of the two things that came with each sigma."""
        if not seen:
            return None, None
        sigmas, *columns = zip(*seen)
        first = self._first_of_steps(list(sigmas))
        tables = [torch.stack(column).float().cpu()[[*first.values()]] for column in columns]
        one, other = (Curve(tuple(first), table) for table in tables)
        return one, other

    def _curves_of_classifier(self, source: ScoreGradient, seen: list[tuple[Any, ...]]) -> ClassifierCurves:
        confidence, gradient = self._curves(seen)
        assert confidence is not None and gradient is not None  # it has been seen
        return ClassifierCurves(in_words(source.wanted(confidence.values.shape[1])), confidence, gradient)

    def _maps(self) -> dict[str, Map]:
        """The entropy of each branch: in a layer the mean of its calls."""
        if not self._entropies:
            return {}
        first = self._first_of_steps([sigma for sigma, _ in self._entropies])
        cells: Cells = defaultdict(list)
        measured = {name for _, of_step in self._entropies for found in of_step for _, name in found.places}
        branches = self._branches(measured)
        for step in self._to_measure & first.keys():
            for found in self._entropies[first[step]][1]:
                for (layer, name), value in zip(found.places, found.values.tolist()):
                    cells[branches[name], layer, step].append(value)
        steps, layers = sorted({step for *_, step in cells}), self._entropies[0][1][0].layers
        names = sorted({name for name, *_ in cells}, key=lambda name: (not is_positive(name), name))
        return {name: Map(tuple(steps), _table(cells, name, layers, steps)) for name in names}

    def _branches(self, names: set[str]) -> dict[str, str]:
        """What branches are called: as the guider does, or ERG's own, with numbers where there are several."""
        own = sorted(names - self._names.of_guider, key=lambda name: (len(name), name))
        numbers = [f" {number}" for number in range(1, len(own) + 1)] if len(own) > 1 else [""]
        return {name: name for name in names} | {name: f"{OWN_BRANCH}{number}" for name, number in zip(own, numbers)}


def _table(cells: Cells, name: str, layers: int, steps: list[int]) -> torch.Tensor:
    table = torch.full((layers, len(steps)), float("nan"))
    for (of_branch, layer, step), values in cells.items():
        if of_branch == name:
            table[layer, steps.index(step)] = sum(values) / len(values)
    return table


def first_picture(latent: torch.Tensor) -> torch.Tensor:
    """Of a batch [B, C, ...] the first, of a video its first frame: [1, C, ...]."""
    return latent[:1, :, :1] if latent.ndim == 5 else latent[:1]
