"""Changes the attention energy of the weak branch of guidance, for one patched clone of a model.

ComfyUI evaluates the conditions of guidance in one batch where it can; `cond_or_uncond` in the transformer options numbers
the condition of each chunk of rows, and the wrapper of CALC_COND_BATCH below adds whose they are. The wrapper of APPLY_MODEL
runs around each evaluation of the network, and has another attention energy in those with weak rows. What changes the
model lives in that evaluation's own options.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrapperExecutor, WrappersMP
from comfy.samplers import CFGGuider
from torch import Tensor

from ..common.percent_window import PercentWindow
from ..common.steps_to_draw import NO_STEP, has_a_step
from ..feedback import Feedback
from ..sampling.condition_names import ConditionNames, Conditions, positive_name
from ..sampling.guidance_interval import GuidanceInterval
from ..sampling.own_branch import Batch, OwnBranch, OwnBranchOfSampling
from .copies import with_copies_as_originals
from .effect import NAME, Effect
from .kinds import tell_kinds
from .network_call import NetworkCall
from .reach import LINEAR, batch_of, name_of, reach_attention
from .sampling_state import SamplingState
from .tempered_evaluation import TemperedEvaluation
from .trunk_sharing import telling_conditions
from .weak_condition import names_of_chunks, weak_chunks

# In transformer options: the frames before, of core's sampler ar_video.
AUTOREGRESSIVE = "ar_state"
# Core's FluxKVCache keeps the attention's view of reference pictures in the first step for all that follow.
KEEPS_KEYS = "KV_Attn_Input"


@dataclass
class WeakBranchAttention:
    """evaluation: what becomes of one that has a weak branch. feedback: of the node that asked for it. own: a weak branch of
    its own, in the place of the guider's. interval: around it, where steps outside of the window have no guidance."""

    evaluation: TemperedEvaluation
    window: PercentWindow
    feedback: Feedback
    own: OwnBranch | None = None
    interval: GuidanceInterval | None = None
    _sampling: SamplingState | None = field(default=None, init=False, repr=False)  # the one that is running
    # Since the model was made ready to run; None while it is not.
    _evaluations: int | None = field(default=None, init=False, repr=False)

    def add_to(self, model: ModelPatcher, key: str) -> None:
        """Adds the wrappers and callbacks to a ModelPatcher, and whatever its network needs for ERG to reach its attention."""
        self._reach(model)
        network, is_first = model.model.diffusion_model, not model.get_wrappers(WrappersMP.APPLY_MODEL, key)
        if is_first and name_of(network) in LINEAR:
            logging.info("%s on %s: %s.", NAME, type(network).__name__, LINEAR[name_of(network)])
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, self.sample)
        if self.own is not None:
            model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, key, self.predict)
        model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, key, self.name_conditions)
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, key, self)
        model.add_callback_with_key(CallbacksMP.ON_PRE_RUN, key, self.make_ready)
        model.add_callback_with_key(CallbacksMP.ON_CLEANUP, key, self.clean_up)

    def _reach(self, model: ModelPatcher) -> None:
        reach_attention(model)
        if self.evaluation.kind != "all":
            tell_kinds(model)

    @contextmanager
    def _reaching_negative_model(self, guider: CFGGuider) -> Iterator[None]:
        """Within, ERG reaches the attention of a model that a guider has for its negative branch alone (DualModelGuider): it
        runs with the wrappers of the main one, but with object patches of its own."""
        negative = getattr(guider, "uncond_model_patcher", None)
        if negative is None or self.own is not None:
            yield
            return
        guider.uncond_model_patcher = negative.clone()
        try:
            with self.feedback.saying_errors():
                self._reach(guider.uncond_model_patcher)
            yield
        finally:
            guider.uncond_model_patcher = negative

    def sample(self, executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Any:
        """A wrapper for ComfyUI's OUTER_SAMPLE: says what was done, or why a whole sampling was left as it was."""
        with self.feedback.saying_errors():
            outer, sampling = self._sampling, self._new_sampling(executor.class_obj, kwargs.get("latent_shapes"))
        self._sampling = sampling
        self._say_what_outlasts_the_window(sampling.effect, executor.class_obj.model_options)
        try:
            with self._reaching_negative_model(executor.class_obj):
                result = executor(*args, **kwargs)
        finally:
            self._sampling = outer
        if outer is None and not has_a_step(*args, **kwargs):
            self.feedback.say_without_effect(NO_STEP)
        elif outer is None:
            self._say_what_was_done(sampling.effect, executor.class_obj)
        return result

    def _say_what_was_done(self, effect: Effect, guider: CFGGuider) -> None:
        if effect.changed:
            self.feedback.say(effect.what())
        elif self.interval is not None and self.interval.left_out_all_guidance:
            why = f"No guidance in all of the sampling: {self.window.why_no_step}"
            logging.warning("%s: %s", NAME, why)
            self.feedback.say(why)
        else:
            self.feedback.warn_without_effect(NAME, effect.why_not(self.window, self.own is not None, guider))

    def _say_what_outlasts_the_window(self, effect: Effect, model_options: dict[str, Any]) -> None:
        patches = model_options.get("transformer_options", {}).get("patches", {}).get("attn1_patch", ())
        if not self.window.is_everything and any(type(patch).__name__ == KEEPS_KEYS for patch in patches):
            effect.say_once(
                "Flux KV Cache keeps what the first step has read of reference pictures, with ERG or without, for all steps: "
                "set start_percent to 0 and end_percent to 1, or take that node out."
            )

    def _new_sampling(self, guider: CFGGuider, latent_shapes: list[Any] | None) -> SamplingState:
        """latent_shapes: of several latents in one.

        Raises RuntimeError where a guider has no condition for a weak branch of its own."""
        names = ConditionNames(guider)
        if self.own is None:
            return SamplingState(names)
        if positive_name(guider.conds) is None:
            raise RuntimeError(
                f"ERG, scale = {self.own.scale:g}: a weak branch of its own needs a positive condition, and the guider "
                f"({type(guider).__name__}) has none. Wire a prompt to its positive input, or set scale to 0."
            )
        batch = batch_of(guider.model_patcher.model.diffusion_model)
        return SamplingState(names, OwnBranchOfSampling(self.own, names, batch, latent_shapes))

    def predict(
        self,
        executor: WrapperExecutor,
        x: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any] = {},
        seed: int | None = None,
    ) -> Tensor:
        """A wrapper for ComfyUI's PREDICT_NOISE: guidance away from a weak branch of its own, on top of the guider's."""
        sampling = self._sampling
        if sampling is None or sampling.own is None:
            return executor(x, timestep, model_options, seed)
        if self.own is not None and AUTOREGRESSIVE in model_options.get("transformer_options", {}):
            with self.feedback.saying_errors():
                raise RuntimeError(
                    f"ERG, scale = {self.own.scale:g}: the sampler ar_video keeps what a model has read of earlier frames "
                    "for one branch alone, and a weak one would write into it. Choose another sampler, or take ERG out."
                )
        sampling.effect.weak = True
        if not self._is_time(timestep, executor.class_obj.inner_model.model_sampling, sampling):
            return executor(x, timestep, model_options, seed)
        sampling.effect.in_time = True
        return sampling.own.predict(executor, x, timestep, model_options, seed)

    def make_ready(self, model: ModelPatcher) -> None:
        """A callback for ComfyUI's ON_PRE_RUN."""
        self._evaluations = 0

    def clean_up(self, model: ModelPatcher) -> None:
        """A callback for ComfyUI's ON_CLEANUP, which also models have whose wrappers their guider does not call."""
        evaluations, self._evaluations = self._evaluations, None
        if self._sampling is None and evaluations == 0:
            self.feedback.warn_without_effect(
                NAME,
                "its guider runs this model without what nodes add to it (DualModelGuider's model_negative). Put ERG on "
                "the guider's main model, which flattens the negative branch whichever model runs it.",
            )

    def name_conditions(
        self,
        executor: WrapperExecutor,
        model: BaseModel,
        conds: Conditions,
        x: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any],
    ) -> Any:
        """A wrapper for ComfyUI's CALC_COND_BATCH: an evaluation knows the names of its conditions."""
        sampling, rest = self._sampling or SamplingState(), telling_conditions(executor)

        def execute(
            model: BaseModel, conds: Conditions, x: Tensor, timestep: Tensor, model_options: dict[str, Any]
        ) -> Any:
            return rest(model, conds, x, timestep, sampling.names.tell(conds, model_options))

        evaluate = execute if sampling.own is None else partial(sampling.own.evaluate, execute)
        return evaluate(model, conds, x, timestep, model_options)

    def __call__(
        self,
        executor: WrapperExecutor,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] = {},
        **conditions: Any,
    ) -> Tensor:
        """A wrapper for ComfyUI's APPLY_MODEL."""
        self._evaluations = (self._evaluations or 0) + 1
        call = NetworkCall(executor, (x, t, c_concat, c_crossattn), control, transformer_options, conditions)
        with self.feedback.saying_errors():
            if batch_of(call.network) is Batch.TWO_HALVES:  # which reads the numbers itself, to tell its halves
                return self._evaluate(call)
            call, in_order = with_copies_as_originals(call)
            return in_order(self._evaluate(call))

    def _evaluate(self, call: NetworkCall) -> Tensor:
        """The network's prediction, with another attention energy for the rows of the weak branch, if it has any now."""
        sampling = self._sampling or SamplingState()
        prediction = self._predicted(call, sampling)
        sampling.effect.note_evaluation(call)  # one that failed may be asked for again
        return prediction

    def _predicted(self, call: NetworkCall, sampling: SamplingState) -> Tensor:
        weak = self._weak_chunks(call.options, sampling)
        if not any(weak):
            sampling.effect.evaluated |= sampling.own is not None and sampling.own.is_predicting
            return call.run()
        sampling.effect.weak = True
        # A branch of its own is there in the window alone.
        if self.own is None and not self._is_time(call.inputs[1], call.executor.class_obj.model_sampling, sampling):
            return call.run()
        sampling.effect.in_time = True
        return self.evaluation.run(call, weak, sampling, _all_in_graph(call))

    def _weak_chunks(self, options: dict[str, Any], sampling: SamplingState) -> tuple[bool, ...]:
        if self.own is None:
            return weak_chunks(options, sampling.names.of_guider)
        return tuple(name == self.own.name for name in names_of_chunks(options) or ())

    def _is_time(self, sigma: Tensor, model_sampling: Any, sampling: SamplingState) -> bool:
        if self.window.is_everything:  # spares reading sigma, which waits for the device
            return True
        return self.window.holds(sigma[0].item(), sampling.find(self.window.sigmas, model_sampling))


def _all_in_graph(call: NetworkCall) -> list[TemperedEvaluation]:
    """Those of all ERG nodes of a graph, each around the next."""
    wrappers = call.options["wrappers"][WrappersMP.APPLY_MODEL].values()
    return [wrapper.evaluation for of_key in wrappers for wrapper in of_key if isinstance(wrapper, WeakBranchAttention)]
