"""When rows of an evaluation are shared: which of them are twins, and whether the network yields the same with them shared.

Twins are found by comparing what the network gets, once a sampling for each kind of evaluation, and only as long as its
conditions are the very tensors that were compared. What sharing makes of a network is measured before it is trusted: the
first evaluation of its kind runs both ways.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from comfy.model_base import BaseModel
from comfy.patcher_extension import WrapperExecutor, WrappersMP

from ..common.want_of_memory import is_want_of_memory
from ..sampling.condition_names import Conditions
from .network_call import OVERRIDE, NetworkCall, copied, with_innermost
from .reach import options_in_reach
from .shared_trunk import RowMap, SharedRows
from .tempered_attention import TemperedAttention

# In transformer options: the tensors of an evaluation's conditions, before ComfyUI makes batches of them; None where a node
# of another pack has a part in them that tells conditions apart (a ControlNet of its own).
CONDITIONS = "entropy_guidance_conditions"

ALIKE = 0.002  # relative distance of hidden states that are the same but for rounding: a quarter of bfloat16's ε

# For each network what was measured: whether it yields the same where rows are shared, by what was shared.
_measured: WeakKeyDictionary[torch.nn.Module, dict[tuple[Any, ...], bool]] = WeakKeyDictionary()


def telling_conditions(executor: WrapperExecutor) -> WrapperExecutor:
    """The rest of a CALC_COND_BATCH, in which transformer options hold the tensors of the conditions as all nodes left them."""

    def tell(
        executor: WrapperExecutor,
        model: BaseModel,
        conds: Conditions,
        x: torch.Tensor,
        timestep: torch.Tensor,
        model_options: dict[str, Any],
    ) -> Any:
        options = {**model_options.get("transformer_options", {}), CONDITIONS: _tensors_of(conds)}
        return executor(model, conds, x, timestep, {**model_options, "transformer_options": options})

    return with_innermost(executor, tell)


def _tensors_of(conds: Conditions) -> tuple[torch.Tensor, ...] | None:
    entries = [entry for of_condition in conds for entry in of_condition or ()]
    if not all(type(control).__module__.startswith("comfy.") for entry in entries for control in _controls(entry)):
        return None
    conditions = (getattr(c, "cond", None) for entry in entries for c in entry.get("model_conds", {}).values())
    return tuple(tensor for condition in conditions for tensor in _tensors(condition))


def _controls(entry: dict[str, Any]) -> Iterator[Any]:
    control = entry.get("control")
    while control is not None:
        yield control
        control = getattr(control, "previous_controlnet", None)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """All in nested tuples, lists and dictionaries."""
    if torch.is_tensor(value):
        yield value
    elif isinstance(value, (tuple, list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


@dataclass
class _Twins:
    """What was found of one kind of evaluation: the twin of each chunk that has one, where conditions are those tensors."""

    conditions: tuple[ref[torch.Tensor], ...] = ()
    twins: dict[int, int] | None = None  # None: not compared


@dataclass
class TrunkSharing:
    """Of one network in one sampling. spared: how many conditions the latest evaluation took less, as a share of the layers."""

    network: torch.nn.Module
    spared: float = 0.0
    _twins: dict[tuple[Any, ...], _Twins] = field(default_factory=dict)
    _measured_here: dict[tuple[Any, ...], bool] = field(default_factory=dict)  # where other nodes change the network
    _trunks: dict[tuple[Any, ...], dict[str, torch.nn.Module]] = field(default_factory=dict)

    def run(
        self,
        call: NetworkCall,
        attention: TemperedAttention,
        weak: tuple[bool, ...],
        copies: Mapping[int, int] | None = None,
    ) -> torch.Tensor:
        """The prediction with this attention. weak: for each chunk whether it is the weak branch's.

        copies: for each weak chunk that is a copy of another the number of that one, where its maker knows: then nothing is
        compared. The maker answers for nodes that change the copy's condition and not the other's.
        """
        self.spared, trunk = 0.0, self._trunk(attention)
        if trunk and any(weak) and not all(weak):

            def share(
                executor: WrapperExecutor,
                x: torch.Tensor,
                t: torch.Tensor,
                c_concat: torch.Tensor | None = None,
                c_crossattn: torch.Tensor | None = None,
                control: Any = None,
                transformer_options: dict[str, Any] = {},
                **conditions: Any,
            ) -> torch.Tensor:
                inner = NetworkCall(executor, (x, t, c_concat, c_crossattn), control, transformer_options, conditions)
                return self._share(inner, call, trunk, weak, copies)

            call = replace(call, executor=with_innermost(call.executor, share))
        return call.run({OVERRIDE: attention}, eagerly=True)

    def _trunk(self, attention: TemperedAttention) -> dict[str, torch.nn.Module]:
        key = attention.layers.names, attention.selected
        if key not in self._trunks:
            names = attention.layers.blocks_before(attention.selected)
            self._trunks[key] = {name: self.network.get_submodule(name) for name in names}
        return self._trunks[key]

    def _share(
        self,
        call: NetworkCall,
        outer: NetworkCall,
        trunk: dict[str, torch.nn.Module],
        weak: tuple[bool, ...],
        copies: Mapping[int, int] | None,
    ) -> torch.Tensor:
        """call: as other nodes around the network left it. outer: as ComfyUI asked for it."""
        if not self._is_as_asked(call, outer):
            return call.run()
        twins = dict(copies) if copies is not None else self._find_twins(call, weak)
        if not twins:
            return call.run()
        shared = SharedRows(
            dict.fromkeys(trunk.values()), RowMap.of(self.network, twins, len(weak), len(call.inputs[0]))
        )
        measured = self._measured_here if call.is_changed_by_others else _measured.setdefault(self.network, {})
        layers = call.options[OVERRIDE].layers.names
        key = (layers, tuple(trunk), shared.map, call.shapes, call.shapes_of_control, call.inputs[0].dtype)
        if key not in measured:
            expected, found = self._measure(call, shared)
            measured[key] = found is not None
            # Others' wrappers had no part in what was found; without them it rounds as all later evaluations will.
            return expected if found is None or call.is_changed_by_others else found
        if not measured[key]:
            return call.run()
        attention = call.options[OVERRIDE]
        self.spared = len(twins) * min(attention.selected) / len(attention.layers.numbers)
        with shared.in_force():
            return call.run()

    @staticmethod
    def _is_as_asked(call: NetworkCall, outer: NetworkCall) -> bool:
        """Whether nodes between the two left the rows, and the attention that counts its calls."""
        numbers = call.options.get("cond_or_uncond")
        return (
            isinstance(call.options.get(OVERRIDE), TemperedAttention)
            and numbers == outer.options["cond_or_uncond"]
            and len(call.inputs[0]) == len(outer.inputs[0])
            and len(call.inputs[0]) % len(numbers) == 0
        )

    def _find_twins(self, call: NetworkCall, weak: tuple[bool, ...]) -> dict[int, int]:
        conditions, numbers = call.options.get(CONDITIONS), tuple(call.options["cond_or_uncond"])
        if conditions is None:
            return {}
        key = (weak, numbers, tuple(call.options.get("uuids", ())), call.shapes, call.shapes_of_control)
        known = self._twins.get(key)
        are_those = (
            known is not None
            and len(known.conditions) == len(conditions)
            and all(of() is tensor for of, tensor in zip(known.conditions, conditions))
        )
        if known is None or are_those and known.twins is None:
            self._twins[key] = known = _Twins(tuple(map(ref, conditions)), self._compare(call, weak, numbers))
        elif not are_those:  # compared as soon as they stay for two evaluations: other nodes may change them in each
            self._twins[key] = known = _Twins(tuple(map(ref, conditions)))
        return known.twins or {}

    def _compare(self, call: NetworkCall, weak: tuple[bool, ...], numbers: tuple[int, ...]) -> dict[int, int]:
        """For each weak chunk another that equals it. Chunks of different numbers may be treated otherwise by other nodes."""
        by_number = call.is_changed_by_others
        chunks = range(len(weak))
        pairs = [
            (a, b)
            for a in chunks
            for b in chunks
            if weak[a] and not weak[b] and (not by_number or numbers[a] == numbers[b])
        ]
        tensors = [*_tensors((call.inputs, call.conditions, call.control))]
        equal = zip(pairs, _are_equal(tensors, pairs, len(weak)))
        return {a: b for (a, b), same in reversed([*equal]) if same}

    def _measure(self, call: NetworkCall, shared: SharedRows) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The prediction without sharing, and with it: None where that is another one."""
        found = why_not = None
        try:
            found = _try(call, shared)
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AssertionError) as error:
            if is_want_of_memory(error):
                raise
            why_not = str(error)
        if found is None:
            expected = call.run()
        else:
            with shared.comparing() as distances:
                expected = call.run()
        if found is not None and not shared.ran:
            why_not = "none of its blocks takes fewer rows"
        elif found is not None and not _agree(found, expected, call):
            why_not = "its blocks yield something else"
        elif found is not None and not _are_twins(distances):
            why_not = "another node changes one of the branches alone"
        if why_not:
            logging.info("ERG computes each branch of %s by itself: %s.", type(self.network).__name__, why_not)
        return expected, found if why_not is None else None


def _are_equal(tensors: list[torch.Tensor], pairs: list[tuple[int, int]], chunks: int) -> list[bool]:
    """For each pair of chunks whether all tensors have the same rows in both; read from the device at once."""
    of_rows = [tensor.chunk(chunks) for tensor in tensors if tensor.ndim and tensor.shape[0] % chunks == 0]
    found = [torch.stack([(t[a] == t[b]).all().to(tensors[0].device) for t in of_rows]).all() for a, b in pairs]
    return torch.stack(found).tolist() if found else []


def _try(call: NetworkCall, shared: SharedRows) -> torch.Tensor:
    """The prediction with shared rows, without the nodes around the network, which may keep what they saw."""
    again = _afresh(call)
    options = {**again.options, "wrappers": {**again.options.get("wrappers", {}), WrappersMP.DIFFUSION_MODEL: {}}}
    with shared.in_force(), options_in_reach(options):
        return replace(again, options=options).run()


def _afresh(call: NetworkCall) -> NetworkCall:
    """The same evaluation once more: networks write into what they get, and attention counts its calls."""
    options = {**copied(call.options), OVERRIDE: call.options[OVERRIDE].afresh()}
    inputs = tuple(map(copied, call.inputs))
    return replace(
        call, inputs=inputs, control=copied(call.control), options=options, conditions=copied(call.conditions)
    )


def _are_twins(distances: list[torch.Tensor]) -> bool:
    """Whether rows that were computed side by side are the same but for rounding, by their relative distances.

    The same kernels make them of the same numbers, so that they differ little in any number format, if at all. What they make
    of the prediction does not tell: in half of the digits of bfloat16, what another node does to one branch is lost.
    """
    return all(float(distance) <= ALIKE for distance in distances)


def _agree(found: torch.Tensor, expected: torch.Tensor, call: NetworkCall) -> bool:
    """Whether two predictions are the same but for rounding.

    Kernels round otherwise for another number of rows: each sum by a share ε of its size, ε of the network's number format,
    which networks enlarge. What agrees in half of its digits, to a share √ε of what the network changes of its input, is the
    same computation; rows of another branch would differ in the first digit.
    """
    model, x = call.executor.class_obj, call.inputs[0]
    epsilon = max(torch.finfo(dtype).eps for dtype in (model.get_dtype_inference(), expected.dtype))
    scale = (expected - x).abs().max() * epsilon**0.5 + x.abs().max() * torch.finfo(expected.dtype).eps * 4
    return bool((found - expected).abs().max() <= scale)
