"""Changes the attention energy of the weak branch of guidance, for one patched clone of a model.

ComfyUI evaluates the conditions of guidance in one batch where it can; `cond_or_uncond` in the transformer options numbers
the condition of each chunk of rows, and the wrapper of CALC_COND_BATCH below adds whose they are. The wrapper of APPLY_MODEL
runs around each evaluation of the network and hands it an attention override that knows the rows of this evaluation. What
changes the model lives in that evaluation's own options; what is kept beyond a sampling are the layers of a network and
the factors of rows, and both hold for any sampling.
"""

import logging
from dataclasses import dataclass, field

from comfy.patcher_extension import CallbacksMP, WrappersMP

from ...guidance_core.attention_energy import AttentionEnergy
from ...guidance_core.layer_selection import LayerSelection
from ..common import PercentWindow
from ..sampling.condition_names import ConditionNames, with_condition_names
from .compiled import CompiledTempering, can_run_compiled
from .effect import Effect, check_changed
from .layers import LayerMap, layer_map, replaced_blocks, structure_of
from .network_call import OVERRIDE, NetworkCall
from .preferred import preferred_attention
from .reach import order_of_partners, order_of_rows
from .rows import label_rows, partner_rows
from .tempered_attention import TemperedAttention
from .weak_condition import partner_chunks, weak_chunks


@dataclass
class _Sampling:
    """What is found once in a sampling and forgotten after it. Without a guider: of one evaluation outside of a sampler."""

    names: ConditionNames = field(default_factory=ConditionNames)
    effect: Effect = field(default_factory=Effect)
    once: dict = field(default_factory=dict)

    def find(self, make, subject):
        """make(subject), made once for a subject."""
        key = make, id(subject)  # networks and their like live as long as the sampling
        if key not in self.once:
            self.once[key] = make(subject)
        return self.once[key]


@dataclass
class WeakBranchAttention:
    """`energy` for the rows of the weak branch, ordinary attention for all others."""

    energy: AttentionEnergy
    layers: LayerSelection
    window: PercentWindow
    kind: str = "all"
    _made: dict = field(default_factory=dict, init=False, repr=False)  # factors of rows, selections of layers
    _compiled: CompiledTempering = field(init=False, repr=False)
    _sampling: _Sampling | None = field(default=None, init=False, repr=False)  # the one that is running
    # Since the model was made ready to run; None while it is not.
    _evaluations: int | None = field(default=None, init=False, repr=False)

    def __post_init__(self):
        self._compiled = CompiledTempering(self.energy.fixed_temperature)

    def add_to(self, model, key: str) -> None:
        """Adds the wrappers and callbacks to a ModelPatcher."""
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, self.sample)
        model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, key, self.name_conditions)
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, key, self)
        model.add_callback_with_key(CallbacksMP.ON_PRE_RUN, key, self.make_ready)
        model.add_callback_with_key(CallbacksMP.ON_CLEANUP, key, self.clean_up)

    def sample(self, executor, *args, **kwargs):
        """A wrapper for ComfyUI's OUTER_SAMPLE: says so where a whole sampling was left as it was."""
        outer, sampling = self._sampling, _Sampling(ConditionNames(executor.class_obj))
        self._sampling = sampling
        try:
            result = executor(*args, **kwargs)
        finally:
            self._sampling = outer
        if outer is None and not sampling.effect.changed:
            self._say_without_effect(sampling.effect.why_not(self.window))
        return result

    def make_ready(self, model) -> None:
        """A callback for ComfyUI's ON_PRE_RUN."""
        self._evaluations = 0

    def clean_up(self, model) -> None:
        """A callback for ComfyUI's ON_CLEANUP, which also models have whose wrappers their guider does not call."""
        evaluations, self._evaluations = self._evaluations, None
        if self._sampling is None and evaluations == 0:
            self._say_without_effect(
                "its guider runs this model without what nodes add to it (DualModelGuider's model_negative). Put ERG on "
                "the guider's main model, which flattens the negative branch whichever model runs it."
            )

    def _say_without_effect(self, why_not: str) -> None:
        logging.warning("Entropy Rectifying Guidance had no effect in this sampling: %s", why_not)

    def name_conditions(self, executor, model, conds, x, timestep, model_options):
        """A wrapper for ComfyUI's CALC_COND_BATCH: an evaluation knows the names of its conditions."""
        names = (self._sampling or _Sampling()).names.of(conds)
        return executor(model, conds, x, timestep, with_condition_names(model_options, names))

    def __call__(
        self, executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **conditions
    ):
        """A wrapper for ComfyUI's APPLY_MODEL."""
        self._evaluations = (self._evaluations or 0) + 1
        call = NetworkCall(executor, (x, t, c_concat, c_crossattn), control, transformer_options, conditions)
        sampling = self._sampling or _Sampling()
        weak = weak_chunks(transformer_options, sampling.names.of_guider)
        if not any(weak):
            return call.run()
        sampling.effect.weak = True
        if not self._is_time(t, executor.class_obj.model_sampling, sampling):
            return call.run()
        sampling.effect.in_time = True
        labels = order_of_rows(call.network, label_rows(weak, len(x), transformer_options, call.other_nodes))
        if self._can_run_compiled(call, sampling):
            result = self._run_compiled(call, labels, sampling)
            if result is not None:
                sampling.effect.changed = True
                return result
        return self._run(call, weak, labels, sampling)

    @property
    def runs_compiled(self) -> bool:
        """Whether it does what compiled code can: scaling the queries of all attention in a layer by one temperature."""
        return self.energy.only_scales_queries and self.energy.fixed_temperature is not None and self.kind == "all"

    def _can_run_compiled(self, call: NetworkCall, sampling: _Sampling) -> bool:
        if not can_run_compiled(call) or sampling.find(preferred_attention, call.network) != (None, False):
            return False
        return all(node.runs_compiled for node in _nodes_of_this_kind(call))  # all ERG nodes of a graph or none

    def _run(self, call: NetworkCall, weak: tuple[bool, ...], labels: tuple[bool, ...], sampling: _Sampling):
        structure = sampling.find(structure_of, call.network)
        for renew in (False, True):
            layers, selected = self._layers(call, structure, renew)
            attention = self._attention(call, layers, selected, weak, labels, sampling)
            result = call.run(eagerly=True, **{OVERRIDE: attention})
            if not attention.calls or _fits(attention, renew):
                self._say_what_was_changed(attention, call, sampling)
                return result
        raise RuntimeError(_misfit(attention, call))

    def _layers(self, call: NetworkCall, structure: tuple, renew: bool) -> tuple[LayerMap, frozenset[int]]:
        """The map of the network's layers, and the selected ones. A selection of nothing may be an old map's fault."""
        layers = layer_map(call, structure, renew=renew)
        try:
            return layers, self._selected(layers)
        except ValueError:
            if renew:
                raise
            return self._layers(call, structure, renew=True)

    def _attention(
        self, call: NetworkCall, layers: LayerMap, selected: frozenset[int], weak, labels, sampling: _Sampling
    ) -> TemperedAttention:
        preferred, differ = sampling.find(preferred_attention, call.network)
        if differ:
            sampling.effect.say_once(
                f"the attention of {type(call.network).__name__} is to use several functions by its checkpoint. With ERG, as "
                "with any node that changes attention, it uses ComfyUI's, in both branches."
            )
        return TemperedAttention(
            self.energy, self.kind, call.network, layers, selected, weak, labels, tuple(call.inputs[0].shape[1:]),
            call.options.get(OVERRIDE), preferred, self._made,
            order_of_partners(call.network, partner_rows(partner_chunks(call.options, weak), len(labels))),
        )  # fmt: skip

    def _selected(self, layers: LayerMap) -> frozenset[int]:
        key = ("selected", layers.sections)
        if key not in self._made:
            self._made[key] = self.layers.choose(layers.sections)
        return self._made[key]

    def _say_what_was_changed(self, attention: TemperedAttention, call: NetworkCall, sampling: _Sampling) -> None:
        """An evaluation without any attention is another node's purpose (EasyCache reuses an earlier one)."""
        effect, missing = sampling.effect, attention.selected - attention.changed
        effect.changed |= bool(attention.changed)
        if effect.changed and missing and self.kind == "all" and replaced_blocks(call.options):
            layers = ", ".join(map(str, sorted(missing))) if attention.changed else "all of them"
            effect.say_once(
                f"{call.other_nodes()} replaces blocks of {type(call.network).__name__} or the attention override. In some "
                f"steps these layers are without ERG: {layers}."
            )
        elif attention.calls:
            network = type(call.network).__name__
            check_changed(bool(attention.changed), self.kind, attention.of_other_kind, network, call.other_nodes)

    def _run_compiled(self, call: NetworkCall, labels: tuple[bool, ...], sampling: _Sampling):
        """The prediction of a compiled network, or None where it is to run without its compiled code."""
        layers, selected = self._layers(call, sampling.find(structure_of, call.network), renew=False)
        changed = any(layer in selected for layer in layers.of_calls)
        check_changed(changed, self.kind, False, type(call.network).__name__, call.other_nodes)
        return self._compiled.run(call, layers, selected, labels)

    def _is_time(self, sigma, model_sampling, sampling: _Sampling) -> bool:
        if self.window.is_everything:  # spares reading sigma, which waits for the device
            return True
        start, end = sampling.find(self.window.sigmas, model_sampling)
        return end <= sigma[0].item() <= start


def _fits(attention: TemperedAttention, renewed: bool) -> bool:
    """Whether the map of layers described an evaluation. Keys that are unknown even to a new map are other nodes' own."""
    unknown = attention.layer_of.unknown
    if renewed:
        attention.layers.strangers.update(unknown)
    known = renewed or not unknown
    return (
        known
        and not attention.misfits
        and attention.layers.fits_unkeyed(attention.layer_of.unkeyed, attention.selected)
    )


def _misfit(attention: TemperedAttention, call: NetworkCall) -> str:
    """Why an evaluation is none that the network makes by itself."""
    network, others = type(call.network).__name__, call.other_nodes()
    if attention.misfits:
        layers = ", ".join(map(str, sorted(attention.misfits)))
        return (
            f"Attention in layers {layers} of {network} gets rows of its own, and which ones are the negative ones cannot be "
            f"told: {others}. Take it out, or choose attention = 'self' if it changes the prompt's part alone. Where no "
            "other node changes the model, please report it."
        )
    return (
        f"ERG cannot tell the layers of {network}: it made {attention.layer_of.unkeyed} attention calls in this graph, but "
        f"makes {len(attention.layers.of_unkeyed_calls)} without other nodes. Take out the node that skips or adds layers "
        f"(a cache, for one): {others}."
    )


def _nodes_of_this_kind(call: NetworkCall) -> list[WeakBranchAttention]:
    """All ERG nodes of a graph, each around the next."""
    wrappers = call.options["wrappers"][WrappersMP.APPLY_MODEL].values()
    return [wrapper for of_key in wrappers for wrapper in of_key if isinstance(wrapper, WeakBranchAttention)]
