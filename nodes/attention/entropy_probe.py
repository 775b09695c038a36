"""An attention override that changes nothing, and measures how evenly the attention of each branch looks around.

It is cheap: of one row of a branch a few heads and queries, in small kernels that nobody waits for. ERG's override calls it, so
that it sees the queries as ERG has scaled them; for that it has to be there before ERG's is.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY

from ...guidance_core.guidance_measures import relative_entropy
from ..common.want_of_memory import is_want_of_memory
from ..sampling.condition_names import place_of_positive
from .flatness import bias_at, evenly_spread, in_heads
from .layers import CallReader, LayerMap, layer_map, structure_of
from .network_call import OVERRIDE, NetworkCall
from .our_override import OurOverride
from .preferred import preferred_attention
from .reach import COUNTED, OWNERS, options_in_reach, order_of_rows
from .sampling_state import SamplingState
from .weak_condition import names_of_chunks

HEADS, QUERIES = 4, 16  # at most, of each attention call


@dataclass(frozen=True)
class Entropies:
    """Of one evaluation. places: of each value its layer and the name of its branch; one layer may make several calls. values:
    the relative entropies, on the device. layers: the number that the network has."""

    places: tuple[tuple[int, str], ...]
    values: torch.Tensor
    layers: int


@dataclass(eq=False)  # by identity, and so hashable: other nodes keep overrides in sets and caches
class EntropyProbe(OurOverride):
    """Of one evaluation. previous, preferred: as `OurOverride` has them."""

    network: torch.nn.Module
    layers: LayerMap
    previous: Callable[..., Any] | None
    preferred: Callable[..., Any] | None
    _layer_of: CallReader = field(init=False)
    _places: list[tuple[int, tuple[str, ...]]] = field(default_factory=list, init=False)  # of calls
    _values: list[torch.Tensor] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._layer_of = CallReader(self.layers)

    def __call__(
        self,
        attention: Callable[..., torch.Tensor],
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        heads: int,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        options = kwargs["transformer_options"]
        layer, rows = self._layer(options), _rows_of_branches(self.network, q.shape[0], options)
        if layer is not None and rows:
            mask = args[0] if args else kwargs.get("mask")
            self._places.append((layer, tuple(rows)))
            self._values.append(_entropies(tuple(rows.values()), q, k, heads, mask, kwargs.get("scale")))
        return self.of_others(attention, options)(q, k, v, heads, *args, **kwargs)

    def _layer(self, options: dict[str, Any]) -> int | None:
        # The network may run once more, to try what is shared.
        if self._layer_of.unkeyed == len(self.layers.of_unkeyed_calls):
            self._layer_of = CallReader(self.layers)
        return self._layer_of(options)

    def found(self) -> Entropies | None:
        """What was measured; None where that is nothing, or where calls cannot be told apart."""
        unkeyed = len(self.layers.of_unkeyed_calls)
        if not self._values or self._layer_of.unkeyed not in (0, unkeyed):
            return None
        names = dict.fromkeys(name for _, of_call in self._places for name in of_call)
        places, values = [], []
        for (layer, of_call), found in zip(self._places, self._values):
            # A branch that is not in a call shares its rows with the positive one there (trunk_sharing.py).
            shared = place_of_positive(of_call)
            stands_for = {name: of_call.index(name) if name in of_call else shared for name in names}
            places += [(layer, name) for name, i in stands_for.items() if i is not None]
            values += [found[i] for i in stands_for.values() if i is not None]
        return Entropies(tuple(places), torch.stack(values), len(self.layers.numbers))


class EntropyProbing:
    """Of one sampling."""

    def __init__(self, options: dict[str, Any]) -> None:
        """options: its transformer options."""
        self._once = SamplingState()
        compiled = COMPILE_KEY in options.get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {})
        self.why_not = "the network is compiled" if compiled else None  # nothing is measured

    def run(self, call: NetworkCall) -> tuple[torch.Tensor, Entropies | None]:
        """The network's prediction, to the bit, and what was measured in it. The first evaluation that a network ever has
        here or with ERG runs once more, to learn its layers."""
        probe = self._probe(call)
        if probe is None:
            return call.run(), None
        options = {**call.options, OVERRIDE: probe}
        with options_in_reach(options):
            prediction = call.executor(*call.inputs, call.control, options, **call.conditions)
        return prediction, probe.found()

    def _probe(self, call: NetworkCall) -> EntropyProbe | None:
        if self.why_not is not None:
            return None
        preferred, differ = self._once.find(preferred_attention, call.network)
        if differ:  # which an override would take away
            self._give_up("its checkpoint asks for several attention functions")
            return None
        try:
            layers = layer_map(call, self._once.find(structure_of, call.network))
        except RuntimeError as error:
            if is_want_of_memory(error):
                raise
            self._give_up("this network's attention cannot be reached")
            return None
        return EntropyProbe(call.network, layers, call.options.get(OVERRIDE), preferred)

    def _give_up(self, why: str) -> None:
        self.why_not = why
        logging.info("Record Guidance: no attention entropy is recorded: %s.", why)


def _rows_of_branches(network: torch.nn.Module, rows: int, options: dict[str, Any]) -> dict[str, int]:
    """For each branch in an attention call the first of its rows; none where they cannot be told.

    options: those of the call, in which a block that runs on some rows alone has the chunks of those.
    """
    names = names_of_chunks(options)
    if not names or rows % len(names) or OWNERS in options or COUNTED in options:
        return {}
    found: dict[str, int] = {}
    for place, chunk in enumerate(order_of_rows(network, tuple(range(len(names))))):
        if names[chunk] is not None:
            found.setdefault(names[chunk], place * (rows // len(names)))
    return found


def _entropies(
    rows: tuple[int, ...], q: torch.Tensor, k: torch.Tensor, heads: int, mask: torch.Tensor | None, scale: float | None
) -> torch.Tensor:
    """The mean relative entropy [rows] of some heads and queries of those rows of a call."""
    q, k = in_heads(q, k, heads)
    every = math.ceil(k.shape[2] / HEADS)
    every_query_head = every * (q.shape[2] // k.shape[2])  # one of those that share keys
    rows_at, queries = _index(rows, q.device), _index(tuple(evenly_spread(q.shape[1], QUERIES)), q.device)
    q, k = q[:, :, ::every_query_head][rows_at[:, None], queries], k[:, :, ::every][rows_at]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    logits = (q.float() * scale).transpose(1, 2) @ k.float().permute(0, 2, 3, 1)
    bias = None if mask is None else bias_at(mask, rows_at, queries)
    if bias is not None and bias.shape[1] > 1:
        bias = bias[:, ::every_query_head]
    return relative_entropy(logits, bias).mean((1, 2))


@lru_cache(maxsize=256)  # a tensor that is made of a list waits for the device
@torch.inference_mode(False)
def _index(numbers: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(numbers, device=device)
