"""Changes the attention energy of the weak branch of guidance, for one patched clone of a model.

ComfyUI evaluates the conditions of guidance in one batch where it can; `cond_or_uncond` in the transformer options names
the condition of each chunk of rows: for a KSampler 0 is the positive and 1 the negative one, which is the weak branch.
The wrapper below runs around each evaluation of the network and hands it an attention override that knows the rows of
this evaluation. What changes the model lives in that evaluation's own options: nothing stays behind after an interrupt,
an exception or the sampling.
"""

import logging
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY as COMPILED

from ..guidance_core.attention_energy import AttentionEnergy, descend, step
from ..guidance_core.layer_selection import LayerSelection
from .attention_layers import (
    NOT_PART_OF_THE_NETWORK,
    OVERRIDE,
    CallReader,
    LayerMap,
    block_key,
    layer_map,
    replaced_blocks,
)
from .attention_reach import labels_of_part, options_in_reach, order_of_rows
from .common import PercentWindow

KINDS = ("all", "self", "cross")
# The number in `cond_or_uncond` of the condition that guidance leads away from, by the name of the guider's class.
NEGATIVE = 1
WEAK_CONDITION = {"Guider_DualCFG": 0, "Guider_PerpNeg": 2, "EntropyGuider": 1}


@dataclass
class WeakBranchAttention:
    """A wrapper for ComfyUI's APPLY_MODEL: `energy` for the rows of the weak branch, ordinary attention for all others."""

    energy: AttentionEnergy
    layers: LayerSelection
    window: PercentWindow
    kind: str = "all"
    _made: dict = field(default_factory=dict, repr=False)
    # Of the sampling that is running: what happened, and the number of the weak condition where its guider is known.
    _seen: Counter = field(default_factory=Counter, repr=False)
    _weak_condition: int | None = field(default=None, repr=False)

    def sample(self, executor, *args, **kwargs):
        """A wrapper for ComfyUI's OUTER_SAMPLE: says so where a whole sampling was left as it was."""
        self._seen.clear()
        self._weak_condition = WEAK_CONDITION.get(type(executor.class_obj).__name__)
        result = executor(*args, **kwargs)
        if not self._seen["changed"]:
            logging.warning("Entropy Rectifying Guidance had no effect in this sampling: %s", self._why_not())
        return result

    def _why_not(self) -> str:
        if not self._seen["weak"]:
            return "it has no negative branch. Set cfg above 1, or use a guider with a negative input."
        if not self._seen["in time"]:
            return (
                f"no step lies between start_percent = {self.window.start} and end_percent = {self.window.end}. "
                "That is as it should be where another sampler does the other steps."
            )
        return "another node skipped the network in each of its steps."

    def __call__(
        self, executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **conditions
    ):
        model, inputs = executor.class_obj, (x, t, c_concat, c_crossattn)
        weak = self._weak_chunks(transformer_options.get("cond_or_uncond", ()))
        if not any(weak):
            return executor(*inputs, control, transformer_options, **conditions)
        self._seen["weak"] += 1
        if not self._is_time(t, model.model_sampling):
            return executor(*inputs, control, transformer_options, **conditions)
        self._seen["in time"] += 1

        def bare_forward(options, replacing=False):
            """The network without what other nodes add to it, and without a ControlNet's lists, which it uses up."""
            bare = {key: value for key, value in transformer_options.items() if key not in NOT_PART_OF_THE_NETWORK}
            if replacing:
                bare["patches_replace"] = transformer_options["patches_replace"]
            with options_in_reach(options), _uncompiled(transformer_options):
                executor.original(*inputs, None, {**bare, **options}, **conditions)

        network = getattr(model.diffusion_model, "_orig_mod", model.diffusion_model)  # of a compiled one
        weak = order_of_rows(network, weak, len(x))
        for renew in (False, True):
            layers = layer_map(network, bare_forward, replaced_blocks(transformer_options), renew=renew)
            evaluation = _Evaluation(self, layers, weak, transformer_options.get(OVERRIDE))
            options = {**transformer_options, OVERRIDE: evaluation}
            # The lists of a ControlNet are used up by an evaluation, and a second one needs them too.
            with options_in_reach(options), _uncompiled(transformer_options):
                result = executor(*inputs, _copied(control), options, **conditions)
            if not evaluation.calls:  # another node, EasyCache for one, reused an earlier evaluation
                return result
            if layers.fits(evaluation.layer_of.without_key, evaluation.selected):
                evaluation.check(network)
                self._seen["changed"] += 1
                return result
        raise RuntimeError(
            f"ERG cannot tell the layers of {type(network).__name__}: it made {evaluation.layer_of.without_key} attention calls in "
            f"this graph, but makes {len(layers.of_call)} without other nodes. Take out the node that skips or adds "
            "layers (skip layer guidance, a cache)."
        )

    def _weak_chunks(self, conditions) -> tuple[bool, ...]:
        """For each chunk of a batch whether it is the weak branch's. Raises RuntimeError where that cannot be told."""
        if self._weak_condition is None and any(condition > NEGATIVE for condition in conditions):
            raise RuntimeError(
                "ERG cannot tell which of this guider's conditions is its weak branch, because it has more than a positive "
                "and a negative one. Use a KSampler, CFGGuider, DualCFGGuider, PerpNegGuider or the ERG Guider."
            )
        weak = NEGATIVE if self._weak_condition is None else self._weak_condition
        return tuple(condition == weak for condition in conditions)

    def once(self, make, *key):
        """make(*key), computed once for each key: whatever does not change from step to step."""
        key = (make, *key)
        if key not in self._made:
            self._made[key] = make(*key[1:])
        return self._made[key]

    def _is_time(self, sigma, model_sampling) -> bool:
        if self.window.is_everything:  # spares reading sigma, which waits for the device
            return True
        start, end = self.once(self.window.sigmas, model_sampling)
        return end <= sigma[0].item() <= start

    @torch.inference_mode(False)
    def factor(self, weak, rows, dimensions, dtype, device) -> torch.Tensor:
        """τ for rows of the weak branch and 1 for others, shaped to scale q."""
        factor = torch.ones(rows, *(1,) * (dimensions - 1), dtype=dtype, device=device)
        factor[_weak_rows(weak, rows, device)] = self.energy.temperature
        return factor


class _Evaluation:
    """The attention override for one evaluation of the network."""

    def __init__(self, branch: WeakBranchAttention, layers: LayerMap, weak: tuple[bool, ...], previous):
        self.branch, self.layer_of, self.weak, self.previous = branch, CallReader(layers), weak, previous
        self.selected = branch.once(branch.layers.choose, layers.sections)
        self.calls = self.changed = 0
        self.calls_of_block = Counter()

    def __call__(self, attention, q, k, v, heads, *args, **kwargs):
        options = kwargs["transformer_options"]
        layer = self.layer_of(options)
        self.calls += 1
        if self.previous is not None:  # another pack's: it stays in force, and may call ComfyUI's attention itself
            attention = partial(self.previous, attention)
        if layer not in self.selected or not self._is_kind(q, k, options):
            return attention(q, k, v, heads, *args, **kwargs)
        self.changed += 1
        weak = labels_of_part(options, self.weak)
        if not any(weak):
            return attention(q, k, v, heads, *args, **kwargs)
        # q is not scaled in place: some networks (Wan's image-to-video blocks) attend twice with the same queries.
        factor = self.branch.once(self.branch.factor, weak, q.shape[0], q.ndim, q.dtype, q.device)
        retrieved = attention(q * factor, k, v, heads, *args, **kwargs)
        if self.branch.energy.only_scales_queries:
            return retrieved
        return self._descend(attention, retrieved, weak, q, k, v, heads, args, kwargs)

    def _is_kind(self, q, k, options) -> bool:
        kind = self.branch.kind
        return kind == "all" or (kind == "cross") == self._is_cross(q, k, options)

    def _is_cross(self, q, k, options) -> bool:
        """ComfyUI does not tell which attention it is. A U-Net's block attends to the picture and then to the prompt;
        elsewhere, cross-attention reads a sequence of another length than its queries."""
        if "transformer_index" not in options:  # which U-Nets alone count
            return q.shape[-2] != k.shape[-2]
        block = block_key(options)
        self.calls_of_block[block] += 1
        return self.calls_of_block[block] % 2 == 0

    def _descend(self, attention, retrieved, weak, q, k, v, heads, args, kwargs):
        """The general energy: the weak rows of what attention retrieved become K_iter descent steps."""
        rows = self.branch.once(_weak_rows, weak, q.shape[0], q.device)
        energy, layout = self.branch.energy, _OutputLayout(heads, kwargs)
        state = step(layout.of_queries(q[rows], retrieved), retrieved[rows], energy)
        if energy.iterations > 1:
            take = _RowTaker(rows, q.shape[0])
            k, v, args, kwargs = take(k), take(v), tuple(map(take, args)), {n: take(a) for n, a in kwargs.items()}
            state = descend(
                state,
                lambda query: attention(layout.to_queries(query, q), k, v, heads, *args, **kwargs),
                replace(energy, iterations=energy.iterations - 1),
            )
        return retrieved.index_copy(0, rows, state)

    def check(self, network) -> None:
        """Raises RuntimeError where the evaluation left every attention as it was: never silently do nothing."""
        if self.changed:
            return
        if self.branch.kind != "all":
            raise RuntimeError(
                f"attention = '{self.branch.kind}': the selected layers of {type(network).__name__} have no "
                f"{self.branch.kind}-attention. Choose 'all', or other layers."
            )
        raise RuntimeError(
            f"ERG changed no attention of {type(network).__name__}: another node replaces the selected layers or the "
            "attention override. Take that node out, or choose other layers."
        )


def _uncompiled(transformer_options: dict):
    """A context in which a network that is compiled runs without its compiled code.

    ComfyUI tells torch.compile not to look at the transformer options, so that compiled code keeps the attention it was
    compiled with: it could neither take ERG up nor leave it out again.
    """
    compiled = COMPILED in transformer_options.get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {})
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def _copied(control):
    return control and {name: list(outputs) for name, outputs in control.items()}


@torch.inference_mode(False)
def _weak_rows(weak: tuple[bool, ...], rows: int, device: torch.device) -> torch.Tensor:
    """Numbers of the rows in the weak chunks. All chunks have equally many rows, one after the other."""
    if rows % len(weak):
        raise RuntimeError(
            f"This model runs attention on {rows} rows for {len(weak)} conditions: which rows are the negative "
            "ones cannot be told. Please report the model; until then, take the node out for it."
        )
    each = rows // len(weak)
    return torch.tensor([i for i in range(rows) if weak[i // each]], device=device, dtype=torch.long)


@dataclass(frozen=True)
class _RowTaker:
    """Takes the weak rows of whatever has one row for each row of q; a mask shared by all rows stays as it is."""

    rows: torch.Tensor
    count: int

    def __call__(self, value):
        if torch.is_tensor(value) and value.ndim > 2 and value.shape[0] == self.count:
            return value[self.rows]
        return value


@dataclass(frozen=True)
class _OutputLayout:
    """Queries come as [B, N, H·D] or, with skip_reshape, [B, H, N, D]; outputs too, with skip_output_reshape."""

    heads: int
    kwargs: dict

    def of_queries(self, q, retrieved):
        """Queries in the output's layout. Raises RuntimeError where values are wider or narrower than queries."""
        split_in, split_out = (self.kwargs.get(name, False) for name in ("skip_reshape", "skip_output_reshape"))
        if split_in and not split_out:
            q = q.transpose(1, 2).flatten(2)
        elif split_out and not split_in:
            q = q.unflatten(2, (self.heads, -1)).transpose(1, 2)
        if q.shape[1:] != retrieved.shape[1:]:
            raise RuntimeError(
                f"alpha, step_size and iterations other than 1 mix queries {list(q.shape[1:])} with values "
                f"{list(retrieved.shape[1:])}, which differ in width in this model: set all three to 1."
            )
        return q

    def to_queries(self, state, q):
        """The inverse of `of_queries`, to the layout of q."""
        if state.ndim == q.ndim:
            return state
        return state.unflatten(2, (self.heads, -1)).transpose(1, 2) if q.ndim == 4 else state.transpose(1, 2).flatten(2)
