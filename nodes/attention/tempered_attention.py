"""The attention override of one evaluation: the attention energy for the rows of the weak branch, no change for others."""

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial

from ...guidance_core.attention_energy import AttentionEnergy, descend, step
from .layers import CallReader, LayerMap, block_key
from .layout import OutputLayout
from .reach import FURTHER_STEP, REACHED, is_new_call, labels_of_part
from .rows import RowTaker, scale_of_rows, weak_rows

KINDS = ("all", "self", "cross")


@dataclass
class TemperedAttention:
    """energy: of the weak rows. weak: for each chunk of rows whether it is the weak branch's, in the order in which the
    network runs them. layers, selected: of the network, and those to change. previous: the override that was there before, which
    stays in force. made: keeps what does not change from step to step.
    """

    energy: AttentionEnergy
    kind: str
    layers: LayerMap
    selected: frozenset[int]
    weak: tuple[bool, ...]
    previous: object
    made: dict
    calls: int = 0
    changed: int = 0
    _calls_of_block: Counter = field(default_factory=Counter)

    def __post_init__(self):
        self.layer_of = CallReader(self.layers)

    def __call__(self, attention, q, k, v, heads, *args, **kwargs):
        options = kwargs["transformer_options"]
        layer = self.layer_of(options)
        self.calls += 1
        if self.previous is not None and (REACHED not in options or isinstance(self.previous, TemperedAttention)):
            # It may call ComfyUI's attention itself.
            attention = partial(self.previous, attention)
        if layer not in self.selected or not self._is_kind(q, k, options):
            return attention(q, k, v, heads, *args, **kwargs)
        self.changed += 1
        weak = labels_of_part(options, self.weak)
        if not any(weak):
            return attention(q, k, v, heads, *args, **kwargs)
        # q is not scaled in place: some networks (Wan's image-to-video blocks) attend twice with the same queries.
        factor = self._once(scale_of_rows, weak, q.shape[0], q.ndim, self.energy.temperature, q.dtype, q.device)
        retrieved = attention(q * factor, k, v, heads, *args, **kwargs)
        if self.energy.only_scales_queries:
            return retrieved
        return self._descend(attention, retrieved, weak, q, k, v, heads, args, kwargs)

    def _once(self, make, *key):
        key = (make, *key)
        if key not in self.made:
            self.made[key] = make(*key[1:])
        return self.made[key]

    def _is_kind(self, q, k, options) -> bool:
        return self.kind == "all" or (self.kind == "cross") == self._is_cross(q, k, options)

    def _is_cross(self, q, k, options) -> bool:
        """ComfyUI does not tell which attention it is. A U-Net's block attends to the picture and then to the prompt;
        elsewhere, cross-attention reads a sequence of another length than its queries."""
        if "transformer_index" not in options:  # which U-Nets alone count
            return q.shape[-2] != k.shape[-2]
        block = block_key(options)
        self._calls_of_block[block] += is_new_call(options)
        return self._calls_of_block[block] % 2 == 0

    def _descend(self, attention, retrieved, weak, q, k, v, heads, args, kwargs):
        """The general energy: the weak rows of what attention retrieved become K_iter descent steps."""
        rows = self._once(weak_rows, weak, q.shape[0], q.device)
        energy, layout = self.energy, OutputLayout(heads, kwargs)
        state = step(layout.of_queries(q[rows], retrieved), retrieved[rows], energy)
        if energy.iterations > 1:
            take = RowTaker(rows, q.shape[0])
            k, v, args, kwargs = take(k), take(v), tuple(map(take, args)), {n: take(a) for n, a in kwargs.items()}
            kwargs["transformer_options"] = _of_weak_rows(kwargs["transformer_options"], weak)
            state = descend(
                state,
                lambda query: attention(layout.to_queries(query, q), k, v, heads, *args, **kwargs),
                replace(energy, iterations=energy.iterations - 1),
            )
        return retrieved.index_copy(0, rows, state)


def _of_weak_rows(options: dict, weak: tuple[bool, ...]) -> dict:
    """Transformer options for attention of the weak rows alone, for overrides that other nodes have put around this one."""
    conditions = options.get("cond_or_uncond", ())
    if len(conditions) == len(weak):
        conditions = [condition for condition, is_weak in zip(conditions, weak) if is_weak]
    return {**options, "cond_or_uncond": conditions, FURTHER_STEP: True}
