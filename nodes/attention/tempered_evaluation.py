"""One evaluation of a network in which the rows of the weak branch have another attention energy.

It runs compiled where that code can do it, with a trunk that is shared where rows are twins, and again where it turns out
that the map of the network's layers was none of this evaluation. What is kept beyond a sampling are factors of rows and
selections of layers, and both hold for any sampling.
"""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ...guidance_core.attention_energy import AttentionEnergy
from ...guidance_core.layer_selection import LayerSelection
from ...guidance_core.named_choice import check_choice
from .compiled import CompiledTempering, can_run_compiled
from .copies import copies_of_chunks
from .effect import check_changed
from .kinds import KINDS
from .layers import LayerMap, layer_map, replaced_blocks, structure_of
from .network_call import OVERRIDE, NetworkCall
from .preferred import preferred_attention
from .reach import order_of_partners, order_of_rows
from .rows import label_rows, partner_rows
from .sampling_state import SamplingState
from .tempered_attention import TemperedAttention
from .trunk_sharing import TrunkSharing
from .weak_condition import partner_chunks


@dataclass
class TemperedEvaluation:
    """`energy` in chosen layers and kinds of attention, for the weak rows of whatever evaluation it is given."""

    energy: AttentionEnergy
    layers: LayerSelection
    kind: str
    share_trunk: bool
    # Factors of rows, and selections of layers.
    _made: dict[tuple[Any, ...], Any] = field(default_factory=dict, init=False, repr=False)
    _compiled: CompiledTempering | None = field(init=False, repr=False)  # None: for a flatness

    def __post_init__(self) -> None:
        check_choice("attention", self.kind, KINDS)
        temperature = self.energy.fixed_temperature
        self._compiled = None if temperature is None else CompiledTempering(temperature)

    @property
    def runs_compiled(self) -> bool:
        """Whether it does what compiled code can: scaling the queries of all attention in a layer by one temperature."""
        return self.energy.only_scales_queries and self._compiled is not None and self.kind == "all"

    def run(
        self, call: NetworkCall, weak: tuple[bool, ...], sampling: SamplingState, nodes: list["TemperedEvaluation"]
    ) -> Tensor:
        """The network's prediction. weak: for each chunk whether it is the weak branch's. nodes: all of the graph."""
        labels = label_rows(weak, len(call.inputs[0]), call.options, call.other_nodes)
        labels = order_of_rows(call.network, labels)
        if self._compiled is not None and self._can_run_compiled(call, sampling, nodes):
            result = self._run_compiled(self._compiled, call, weak, labels, sampling)
            if result is not None:
                return result
        if call.is_compiled:
            sampling.effect.say_once(
                f"{type(call.network).__name__} runs without its compiled code where ERG changes it."
            )
        return self._run(call, weak, labels, sampling, alone=len(nodes) == 1)

    def _can_run_compiled(self, call: NetworkCall, sampling: SamplingState, nodes: list["TemperedEvaluation"]) -> bool:
        if not can_run_compiled(call) or sampling.find(preferred_attention, call.network) != (None, False):
            return False
        return all(node.runs_compiled for node in nodes)  # all or none

    def _run_compiled(
        self,
        compiled: CompiledTempering,
        call: NetworkCall,
        weak: tuple[bool, ...],
        labels: tuple[bool, ...],
        sampling: SamplingState,
    ) -> Tensor | None:
        """The prediction of a compiled network, or None where it is to run without its compiled code."""
        layers, selected = self._layers(call, sampling.find(structure_of, call.network), renew=False)
        changed = selected.intersection(layers.of_calls)
        check_changed(bool(changed), self.kind, False, type(call.network).__name__, call.other_nodes)
        found = compiled.run(call, layers, selected, labels)
        if found is None:
            return None
        result, ran = found
        if ran:
            sampling.effect.note_change(call, changed, len(layers.numbers))
        else:
            sampling.effect.spared.append(len(weak))
        return result

    def _run(
        self, call: NetworkCall, weak: tuple[bool, ...], labels: tuple[bool, ...], sampling: SamplingState, alone: bool
    ) -> Tensor:
        structure = sampling.find(structure_of, call.network)
        for renew in (False, True):
            layers, selected = self._layers(call, structure, renew)
            attention = self._attention(call, layers, selected, weak, labels, sampling)
            result, spared = self._run_network(call, attention, weak, sampling, alone)
            if renew:  # keys that are unknown even to a new map are other nodes' own
                layers.strangers.update(attention.layer_of.unknown)
            if not attention.calls or _fits(attention, renew):
                sampling.effect.spared.append(spared)
                self._say_what_was_changed(attention, call, sampling)
                return result
        raise RuntimeError(_misfit(attention, call))

    def _run_network(
        self,
        call: NetworkCall,
        attention: TemperedAttention,
        weak: tuple[bool, ...],
        sampling: SamplingState,
        alone: bool,
    ) -> tuple[Tensor, float]:
        """The prediction, and how many conditions' work was spared."""
        sharing = sampling.find(TrunkSharing, call.network)
        if self.share_trunk and alone:
            result = sharing.run(call, attention, weak, copies_of_chunks(call.options) or None)
        else:
            result = call.run({OVERRIDE: attention}, eagerly=True)
        return result, sharing.spared if attention.calls else len(weak)

    def _layers(self, call: NetworkCall, structure: tuple[Any, ...], renew: bool) -> tuple[LayerMap, frozenset[int]]:
        """The map of the network's layers, and the selected ones. A selection of nothing may be an old map's fault."""
        layers = layer_map(call, structure, renew=renew)
        try:
            return layers, self._selected(layers)
        except ValueError:
            if renew:
                raise
            return self._layers(call, structure, renew=True)

    def _attention(
        self,
        call: NetworkCall,
        layers: LayerMap,
        selected: frozenset[int],
        weak: tuple[bool, ...],
        labels: tuple[bool, ...],
        sampling: SamplingState,
    ) -> TemperedAttention:
        preferred, differ = sampling.find(preferred_attention, call.network)
        if differ:
            sampling.effect.say_once(
                f"the attention of {type(call.network).__name__} is to use several functions by its checkpoint. With ERG, as "
                "with any node that changes attention, it uses ComfyUI's, in both branches."
            )
        return TemperedAttention(
            self.energy, self.kind, call.network, layers, selected, weak, labels, tuple(call.inputs[0].shape[1:]),
            call.options.get(OVERRIDE), preferred, self._made, self._partners(call, weak, len(labels)),
        )  # fmt: skip

    def _partners(self, call: NetworkCall, weak: tuple[bool, ...], rows: int) -> tuple[int, ...]:
        """For each row, as the network runs them, the one at which its attention is measured; none where nothing is."""
        if self.energy.fixed_temperature is not None:
            return ()
        copies = copies_of_chunks(call.options)
        chunks = (copies.get(chunk, partner) for chunk, partner in enumerate(partner_chunks(call.options, weak)))
        return order_of_partners(call.network, partner_rows(tuple(chunks), rows))

    def _selected(self, layers: LayerMap) -> frozenset[int]:
        key = ("selected", layers.sections)
        if key not in self._made:
            self._made[key] = self.layers.choose(layers.sections)
        return self._made[key]

    def _say_what_was_changed(self, attention: TemperedAttention, call: NetworkCall, sampling: SamplingState) -> None:
        """An evaluation without any attention is another node's purpose (EasyCache reuses an earlier one)."""
        effect, missing = sampling.effect, attention.selected - attention.changed
        effect.note_change(call, attention.changed, len(attention.layers.numbers))
        if effect.changed and missing and self.kind == "all" and replaced_blocks(call.options):
            layers = ", ".join(map(str, sorted(missing))) if attention.changed else "all of them"
            effect.say_once(
                f"{call.other_nodes()} replaces blocks of {type(call.network).__name__} or the attention override. In some "
                f"steps these layers are without ERG: {layers}."
            )
        elif attention.calls:
            network = type(call.network).__name__
            check_changed(bool(attention.changed), self.kind, attention.of_other_kind, network, call.other_nodes)


def _fits(attention: TemperedAttention, renewed: bool) -> bool:
    """Whether the map of layers described an evaluation."""
    return (
        (renewed or not attention.layer_of.unknown)
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
