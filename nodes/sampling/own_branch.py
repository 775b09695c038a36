"""A weak branch of guidance's own: the positive condition once more, in the same evaluation as the sampler's conditions.

It leaves the sampler's conditions and its own guidance as they are, and so works with any cfg, guider and sampler. What
makes the branch weak is the attention's matter, which tells its rows by the branch's name. The formula is in
guidance_core/own_weak_branch.py.
"""

import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from itertools import count
from typing import Any
from uuid import UUID, uuid4

from comfy.model_base import BaseModel
from comfy.patcher_extension import WrapperExecutor
from comfy.utils import pack_latents, unpack_latents
from torch import Tensor

from ...guidance_core import own_weak_branch
from ...guidance_core.number_range import check_number, check_share
from ..common.want_of_memory import is_want_of_memory
from ..feedback import SAID
from .condition_names import BRANCH, COPY_OF, ConditionNames, Conditions, place_of_positive

_numbers = count()

# What a network takes as a batch: any rows, the halves of two conditions, or a single row.
Batch = Enum("Batch", ["ANY", "TWO_HALVES", "ONE_ROW"])


@dataclass(frozen=True)
class OwnBranch:
    """scale: s ≥ 0. rescale: φ in 0..1, towards the spread of the positive prediction. Raises ValueError for others."""

    scale: float
    rescale: float = 0.0
    name: str = field(default_factory=lambda: f"own weak branch {next(_numbers)}")

    def __post_init__(self) -> None:
        check_number("scale", self.scale, 0)
        check_share("rescale", self.rescale)


class OwnBranchOfSampling:
    """What a branch is in one sampling: copies of the positive condition's entries, and the step that is running."""

    def __init__(
        self, branch: OwnBranch, names: ConditionNames, batch: Batch = Batch.ANY, latent_shapes: list[Any] | None = None
    ) -> None:
        """batch: what the network takes. latent_shapes: of several latents in one (a video with its sound)."""
        self._branch, self._names, self._batch = branch, names, batch
        self._latent_shapes = latent_shapes or []
        self._uuids: dict[UUID, UUID] = {}  # caches of other nodes tell conditions by their uuids, step for step
        self._step: _Step | None = None

    @property
    def is_predicting(self) -> bool:
        """Whether a prediction is made that is to be led away from the branch."""
        return self._step is not None

    def predict(
        self, executor: WrapperExecutor, x: Tensor, timestep: Tensor, model_options: dict[str, Any], seed: int | None
    ) -> Tensor:
        """A guider's prediction, led away from the branch. executor: the rest of ComfyUI's PREDICT_NOISE."""
        outer, self._step = self._step, _Step(model_options.get("context_handler"), self._latent_shapes)
        try:
            guided = executor(x, timestep, self._step.with_windows(model_options, self.evaluate), seed)
            return self._step.guide(guided, self._branch)
        finally:
            self._step = outer

    def evaluate(self, execute: Callable[..., Any], model: BaseModel, conds: Conditions, *args: Any) -> Any:
        """An evaluation of conditions, `execute(model, conds, ...)`: the first of a step that has the positive one has its
        copy, too. The predictions are those of `conds`."""
        step, positive = self._step, None
        if step is not None and not step.evaluated:
            positive = place_of_positive(self._names.of_branches(conds))
        if step is None or positive is None:
            return execute(model, conds, *args)
        step.evaluated = True  # at once: context windows evaluate within `execute`
        try:
            predictions, weak = self._with_copy(execute, model, conds, positive, *args)
            step.take(predictions[positive], weak, self._branch)
        finally:  # where it failed, another node may ask again, for less at once
            step.evaluated = step.difference is not None
        return predictions

    def _with_copy(
        self, execute: Callable[..., Any], model: BaseModel, conds: Conditions, positive: int, *args: Any
    ) -> tuple[Any, Any]:
        """The predictions of conditions, and of a copy of the positive one."""
        copy = list(map(self._copy, conds[positive] or ()))
        if self._batch is Batch.ONE_ROW:
            predictions, (weak,) = execute(model, conds, *args), execute(model, [copy], *args)
        elif self._batch is Batch.TWO_HALVES and sum(map(bool, conds)) % 2 == 0:
            predictions, (_, weak) = execute(model, conds, *args), execute(model, [conds[positive], copy], *args)
        elif self._is_better_in_two(model, conds, copy, *args):
            others = [None if place == positive else condition for place, condition in enumerate(conds)]
            predictions = [*execute(model, others, *args)]
            predictions[positive], weak = execute(model, [conds[positive], copy], *args)
        else:
            *predictions, weak = self._at_once(execute, model, conds, copy, *args)
        return predictions, weak

    def _at_once(
        self, execute: Callable[..., Any], model: BaseModel, conds: Conditions, copy: list[Any], *args: Any
    ) -> list[Any]:
        """The predictions of conditions and of a copy in one batch; apart, from then on, where the copy alone makes a batch of
        what was a single row, and another node in the network knows only such (USO's style pictures, InfiniteTalk's sound)."""
        try:
            return [*execute(model, [*conds, copy], *args)]
        except RuntimeError as error:
            if is_want_of_memory(error) or SAID in vars(error) or sum(map(bool, conds)) > 1:
                raise
            reason = str(error)
        # Not before the error has gone, and with it what was computed until then.
        apart = [*execute(model, conds, *args), *execute(model, [copy], *args)]
        self._batch = Batch.ONE_ROW
        logging.info(
            "Entropy Rectifying Guidance evaluates its weak branch apart from the positive one, since both at once failed, "
            "as with nodes that know a single row: %s", reason,
        )  # fmt: skip
        return apart

    def _is_better_in_two(self, model: BaseModel, conds: Conditions, copy: list[Any], *args: Any) -> bool:
        """Whether the positive condition and its copy are to be evaluated apart from the others. Context windows evaluate parts
        of what is given here."""
        in_windows = self._step is not None and self._step.windows is not None
        more = self._batch is Batch.ANY and sum(map(bool, conds)) > 1 and not in_windows
        return more and not _fit(model, [*conds, copy], *args)

    def _copy(self, entry: dict[str, Any]) -> dict[str, Any]:
        uuid = self._uuids.setdefault(entry["uuid"], uuid4())
        return {**entry, "uuid": uuid, COPY_OF: entry["uuid"], BRANCH: self._branch.name}


def _fit(model: BaseModel, conds: Conditions, x: Tensor, timestep: Tensor, model_options: dict[str, Any]) -> bool:
    """Whether there is memory for all entries of conditions at once. Where there is not, ComfyUI tries half as many and fewer,
    so that of three each is evaluated alone, and a copy apart from its original. Several GPUs share them out."""
    if "multigpu_clones" in model_options:
        return True
    entries, shapes = [entry for condition in conds for entry in condition or ()], defaultdict(list)
    for entry in entries:
        for name, condition in entry.get("model_conds", {}).items():
            shapes[name].append(condition.size())
    needed = model.memory_required([len(x) * len(entries), *x.shape[1:]], cond_shapes=shapes)
    return needed * 1.5 < model.current_patcher.get_free_memory(x.device)


@dataclass
class _Step:
    """windows: the context handler of the sampling, if any. latent_shapes: of the latents that a prediction holds."""

    windows: object | None
    latent_shapes: list[Any]
    evaluated: bool = False
    difference: Tensor | None = None
    spreads: list[Tensor] | None = None  # of each latent

    def with_windows(self, model_options: dict[str, Any], evaluate: Callable[..., Any]) -> dict[str, Any]:
        """Model options whose context windows evaluate a copy too, and put it together as they do all conditions."""
        if self.windows is None:
            return model_options
        return {**model_options, "context_handler": _Windows(self.windows, evaluate)}

    def take(self, positive: Any, weak: Any, branch: OwnBranch) -> None:
        """Keeps what it needs of the two predictions at once: other nodes may write into them."""
        self.difference = positive - weak
        self.spreads = [*map(own_weak_branch.spread, self._latents(positive))] if branch.rescale else None

    def guide(self, guided: Tensor, branch: OwnBranch) -> Tensor:
        if self.difference is None:  # another node had no need of an evaluation in this step
            return guided
        guided = own_weak_branch.guide(guided, self.difference, branch.scale)
        if self.spreads is None:
            return guided
        latents = zip(self._latents(guided), self.spreads)
        rescaled = [own_weak_branch.rescale(latent, spread, branch.rescale) for latent, spread in latents]
        return pack_latents(rescaled)[0] if len(rescaled) > 1 else rescaled[0]

    def _latents(self, prediction: Tensor) -> list[Tensor]:
        return list(unpack_latents(prediction, self.latent_shapes))


class _Windows:
    """A context handler of ComfyUI's, in an evaluation with one more condition."""

    def __init__(self, handler: Any, evaluate: Callable[..., Any]) -> None:
        self._handler, self._evaluate = handler, evaluate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)

    def execute(self, calc_cond_batch: Callable[..., Any], *args: Any) -> Any:
        return self._evaluate(partial(self._handler.execute, calc_cond_batch), *args)
