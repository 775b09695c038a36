"""Changes the attention energy of the weak branch of guidance, for one patched clone of a model.

ComfyUI evaluates the conditions of guidance in one batch where it can; `cond_or_uncond` in the transformer options names
the condition of each chunk of rows: for a KSampler 0 is the positive and 1 the negative one, which is the weak branch.
The wrapper below runs around each evaluation of the network and hands it an attention override that knows the rows of
this evaluation. What changes the model lives in that evaluation's own options: nothing stays behind after an interrupt,
an exception or the sampling.
"""

import logging
from dataclasses import dataclass, field

from comfy.patcher_extension import WrappersMP

from ...guidance_core.attention_energy import AttentionEnergy
from ...guidance_core.layer_selection import LayerSelection
from ..common import PercentWindow
from .compiled import CompiledTempering, can_run_compiled
from .effect import Effect, check_changed
from .layers import LayerMap, layer_map, replaced_blocks
from .network_call import OVERRIDE, NetworkCall
from .reach import order_of_rows
from .tempered_attention import TemperedAttention
from .weak_condition import weak_chunks


@dataclass
class WeakBranchAttention:
    """A wrapper for ComfyUI's APPLY_MODEL: `energy` for the rows of the weak branch, ordinary attention for all others."""

    energy: AttentionEnergy
    layers: LayerSelection
    window: PercentWindow
    kind: str = "all"
    _made: dict = field(default_factory=dict, repr=False)  # what does not change from step to step
    _compiled: CompiledTempering = field(init=False, repr=False)
    # Of the sampling that is running.
    _guider: object = field(default=None, repr=False)
    _effect: Effect = field(default_factory=Effect, repr=False)

    def __post_init__(self):
        self._compiled = CompiledTempering(self.energy.temperature)

    def sample(self, executor, *args, **kwargs):
        """A wrapper for ComfyUI's OUTER_SAMPLE: says so where a whole sampling was left as it was."""
        outer, self._guider = self._guider, executor.class_obj
        self._effect = Effect()
        try:
            result = executor(*args, **kwargs)
        finally:
            self._guider = outer
        if not self._effect.changed:
            why_not = self._effect.why_not(self.window)
            logging.warning("Entropy Rectifying Guidance had no effect in this sampling: %s", why_not)
        return result

    def __call__(
        self, executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **conditions
    ):
        call = NetworkCall(executor, (x, t, c_concat, c_crossattn), control, transformer_options, conditions)
        weak = weak_chunks(transformer_options, self._guider)
        if not any(weak):
            return call.run()
        self._effect.weak = True
        if not self._is_time(t, executor.class_obj.model_sampling):
            return call.run()
        self._effect.in_time = True
        # Compiled code takes all ERG nodes of a graph or none.
        if can_run_compiled(call) and all(node.only_scales_queries for node in _nodes_of_this_kind(call)):
            result = self._run_compiled(call, weak)
            if result is not None:
                self._effect.changed = True
                return result
        return self._run(call, weak)

    @property
    def only_scales_queries(self) -> bool:
        return self.energy.only_scales_queries and self.kind == "all"

    def _run(self, call: NetworkCall, weak: tuple[bool, ...]):
        for renew in (False, True):
            layers = self._layer_map(call, renew)
            attention = self._attention(call, layers, weak)
            result = call.run(eagerly=True, **{OVERRIDE: attention})
            if not attention.calls:  # another node, EasyCache for one, reused an earlier evaluation
                return result
            if layers.fits(attention.layer_of.without_key, attention.selected):
                check_changed(attention.changed, self.kind, type(call.network).__name__)
                self._effect.changed = True
                return result
        raise RuntimeError(
            f"ERG cannot tell the layers of {type(call.network).__name__}: it made {attention.layer_of.without_key} "
            f"attention calls in this graph, but makes {len(layers.of_call)} without other nodes. Take out the node that "
            "skips or adds layers (a cache, for one)."
        )

    def _layer_map(self, call: NetworkCall, renew: bool = False) -> LayerMap:
        return layer_map(call.network, call.run_bare, replaced_blocks(call.options), renew=renew)

    def _attention(self, call: NetworkCall, layers: LayerMap, weak: tuple[bool, ...]) -> TemperedAttention:
        weak = order_of_rows(call.network, weak, len(call.inputs[0]))
        previous = call.options.get(OVERRIDE)
        return TemperedAttention(self.energy, self.kind, layers, self._selected(layers), weak, previous, self._made)

    def _selected(self, layers: LayerMap) -> frozenset[int]:
        key = ("selected", layers.sections)
        if key not in self._made:
            self._made[key] = self.layers.choose(layers.sections)
        return self._made[key]

    def _run_compiled(self, call: NetworkCall, weak: tuple[bool, ...]):
        """The prediction of a compiled network, or None where it is to run without its compiled code."""
        layers = self._layer_map(call)
        selected = self._selected(layers)
        changed = sum(layer in selected for layer in layers.layers_of_calls)
        check_changed(changed, self.kind, type(call.network).__name__)
        return self._compiled.run(call, layers, selected, weak)

    def _is_time(self, sigma, model_sampling) -> bool:
        if self.window.is_everything:  # spares reading sigma, which waits for the device
            return True
        key = ("window", model_sampling)
        if key not in self._made:
            self._made[key] = self.window.sigmas(model_sampling)
        start, end = self._made[key]
        return end <= sigma[0].item() <= start


def _nodes_of_this_kind(call: NetworkCall) -> list[WeakBranchAttention]:
    """All ERG nodes of a graph, each around the next."""
    wrappers = call.options["wrappers"][WrappersMP.APPLY_MODEL].values()
    return [wrapper for of_key in wrappers for wrapper in of_key if isinstance(wrapper, WeakBranchAttention)]
