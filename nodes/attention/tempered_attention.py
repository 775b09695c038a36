"""The attention override of one evaluation: the attention energy for the rows of the weak branch, no change for others."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Any

import torch

from ...guidance_core.attention_energy import AttentionEnergy, descend, step
from .copies import PER_CHUNK
from .flatness import factor_of_heads, find_places, measured_at
from .kinds import kind_of_call
from .layers import CallReader, LayerMap
from .layout import OutputLayout
from .our_override import OurOverride
from .reach import COUNTED, OWNERS
from .rows import RowTaker, index_of_rows, owners_of_rows, owners_of_weak_rows, scale_of_rows


@dataclass(eq=False)  # by identity, and so hashable: other nodes keep overrides in sets and caches
class TemperedAttention(OurOverride):
    """energy: of the weak rows. chunks: for each condition of the batch whether it is the weak branch's. labels: the same
    for each row of the network's input, in the order in which the network runs them. layers, selected: of the network,
    and those to change. size: the shape of the input's rows. previous: the override that was there before, which stays in
    force. preferred: the attention function that the network's checkpoint asks for in the place of ComfyUI's, if any.
    made: keeps what does not change from step to step. partners: for each row of the network's input, in that same order,
    the row at which its attention is measured, where the energy asks for a flatness.

    ComfyUI before 0.40 calls it as override(func, q, k, v, heads, ...) with tensors. Later ones would rather give the
    containers of q, k and v to an attribute `container_function`, which it therefore must not have.
    """

    energy: AttentionEnergy
    kind: str
    network: torch.nn.Module
    layers: LayerMap
    selected: frozenset[int]
    chunks: tuple[bool, ...]
    labels: tuple[bool, ...]
    size: tuple[int, ...]
    previous: Callable[..., Any] | None
    preferred: Callable[..., Any] | None
    made: dict[tuple[Any, ...], Any]
    partners: tuple[int, ...] = ()
    calls: int = 0
    changed: set[int] = field(default_factory=set)  # layers
    of_other_kind: bool = False
    misfits: set[int] = field(default_factory=set)  # layers whose rows cannot be told
    layer_of: CallReader = field(init=False)

    def __post_init__(self) -> None:
        self.layer_of = CallReader(self.layers)

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
        layer = self.layer_of(options)
        self.calls += 1
        attention = self.of_others(attention, options)
        if layer not in self.selected or not self._is_kind(q, k, options):
            return attention(q, k, v, heads, *args, **kwargs)
        owners = self._owners(q, options)
        if owners is None or not self._rows_fit(layer, q, options):
            self.misfits.add(layer)
            return attention(q, k, v, heads, *args, **kwargs)
        self.changed.add(layer)
        labels = tuple(self.labels[owner] for owner in owners)
        if not any(labels):
            return attention(q, k, v, heads, *args, **kwargs)
        # q is not scaled in place: some networks (Wan's image-to-video blocks) attend twice with the same queries.
        factor = self._factor(labels, owners, q, k, heads, args, kwargs)
        retrieved = attention(q * factor, k, v, heads, *args, **kwargs)
        if self.energy.only_scales_queries:
            return retrieved
        return self._descend(attention, retrieved, labels, owners, factor, q, k, v, heads, args, kwargs)

    def _factor(
        self,
        labels: tuple[bool, ...],
        owners: tuple[int, ...],
        q: torch.Tensor,
        k: torch.Tensor,
        heads: int,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> torch.Tensor:
        """What multiplies q: τ for weak rows, 1 for others."""
        if (temperature := self.energy.fixed_temperature) is not None:
            return self._once(scale_of_rows, labels, q.shape[0], q.ndim, temperature, q.dtype, q.device)
        measured = measured_at(labels, self.partners, owners)
        places = self._once(find_places, measured, owners, q.shape[0], q.shape[-2], q.device)
        mask = args[0] if args else kwargs.get("mask")
        return factor_of_heads(self.energy.flatness, places, q, k, heads, mask, kwargs.get("scale"))

    def _owners(self, q: torch.Tensor, options: dict[str, Any]) -> tuple[int, ...] | None:
        """Of each labelled row of a call which row of the network's input it is; None where that cannot be told."""
        if OWNERS in options:
            return options[OWNERS]
        return self._once(owners_of_rows, q.shape[0], q.shape[-2], len(self.labels), len(self.chunks))

    def afresh(self) -> "TemperedAttention":
        """The same for another evaluation, which has seen no call yet."""
        return replace(self, calls=0, changed=set(), of_other_kind=False, misfits=set())

    def _once(self, make: Callable[..., Any], *key: Any) -> Any:
        key = (make, *key)
        if key not in self.made:
            self.made[key] = make(*key[1:])
        return self.made[key]

    def _is_kind(self, q: torch.Tensor, k: torch.Tensor, options: dict[str, Any]) -> bool:
        if self.kind == "all":
            return True
        is_kind = kind_of_call(self.network, q, k, options) == self.kind
        self.of_other_kind |= not is_kind
        return is_kind

    def _rows_fit(self, layer: int, q: torch.Tensor, options: dict[str, Any]) -> bool:
        known = self.layers.rows.get(layer)
        if OWNERS in options or COUNTED in options:
            return True
        if known is None:
            return q.shape[0] % len(self.labels) == 0
        return known.fit(q, len(self.labels), self.size == self.layers.size)

    def _descend(
        self,
        attention: Callable[..., torch.Tensor],
        retrieved: torch.Tensor,
        labels: tuple[bool, ...],
        owners: tuple[int, ...],
        factor: torch.Tensor,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        heads: int,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> torch.Tensor:
        """The general energy: the weak rows of what attention retrieved become K_iter descent steps, at one temperature."""
        rows = self._once(index_of_rows, labels, q.shape[0], q.device)
        energy, layout = self.energy, OutputLayout(heads, kwargs)
        state = step(layout.of_queries(q[rows], retrieved), retrieved[rows], energy)
        if energy.iterations > 1:
            take = RowTaker(rows, q.shape[0])
            k, v, args, kwargs = take(k), take(v), tuple(map(take, args)), {n: take(a) for n, a in kwargs.items()}
            kwargs["transformer_options"] = self._options_of_weak_rows(
                kwargs["transformer_options"], labels, owners, q.shape[0]
            )
            temperature, factor = energy.fixed_temperature, factor[rows]

            def attend(query: torch.Tensor) -> torch.Tensor:
                query = layout.to_queries(query, q)
                return attention(query * factor if temperature is None else query, k, v, heads, *args, **kwargs)

            temperature_of_all = 1.0 if temperature is None else temperature
            further = replace(energy, temperature=temperature_of_all, flatness=-1.0, iterations=energy.iterations - 1)
            state = descend(state, attend, further)
        return retrieved.index_copy(0, rows, state)

    def _options_of_weak_rows(
        self, options: dict[str, Any], labels: tuple[bool, ...], owners: tuple[int, ...], rows: int
    ) -> dict[str, Any]:
        """Transformer options for attention of the weak rows alone, for overrides of other nodes within this one."""
        owners = self._once(owners_of_weak_rows, labels, rows, owners)
        lists = {name: [*compress(options[name], self.chunks)] for name in PER_CHUNK if name in options}
        return {**options, **lists, OWNERS: owners, COUNTED: True}
