"""Changes the attention energy of the negative branch of guidance, for one patched clone of a model.

ComfyUI evaluates the positive and the negative condition in one batch where it can; `cond_or_uncond` in the
transformer options names the condition of each chunk of rows (0 positive, 1 negative). The wrapper below runs around
each evaluation of the network and hands it an attention override that knows the rows of this evaluation. What changes
the model lives in that evaluation's own options: nothing stays behind after an interrupt, an exception or the sampling.
"""

import logging
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY as COMPILED

from ..guidance_core.attention_energy import AttentionEnergy, descend, step
from ..guidance_core.layer_selection import LayerSelection
from .attention_layers import NOT_PART_OF_THE_NETWORK, OVERRIDE, LayerMap, block_key, layer_map
from .common import PercentWindow

NEGATIVE = 1  # ComfyUI's number of the negative condition in `cond_or_uncond`
KINDS = ("all", "self", "cross")


@dataclass
class WeakBranchAttention:
    """A wrapper for ComfyUI's APPLY_MODEL: ordinary attention for positive rows, `energy` for negative ones."""

    energy: AttentionEnergy
    layers: LayerSelection
    window: PercentWindow
    kind: str = "all"
    _made: dict = field(default_factory=dict, repr=False)
    _seen: Counter = field(default_factory=Counter, repr=False)  # what happened in the sampling that is running

    def sample(self, executor, *args, **kwargs):
        """A wrapper for ComfyUI's OUTER_SAMPLE: says so where a whole sampling was left as it was."""
        self._seen.clear()
        result = executor(*args, **kwargs)
        if not self._seen["changed"]:
            logging.warning("Entropy Rectifying Guidance had no effect in this sampling: %s", self._why_not())
        return result

    def _why_not(self) -> str:
        if not self._seen["negative"]:
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
        chunks = tuple(transformer_options.get("cond_or_uncond", ()))
        _refuse_unknown_conditions(chunks)
        if NEGATIVE not in chunks:
            return executor(*inputs, control, transformer_options, **conditions)
        self._seen["negative"] += 1
        if not self._is_time(t, model.model_sampling):
            return executor(*inputs, control, transformer_options, **conditions)
        self._seen["in time"] += 1
        _refuse_compiled(transformer_options)

        def bare_forward(options):
            """The network without what other nodes add to it, and without a ControlNet's lists, which it uses up."""
            bare = {key: value for key, value in transformer_options.items() if key not in NOT_PART_OF_THE_NETWORK}
            executor.original(*inputs, None, {**bare, **options}, **conditions)

        network = model.diffusion_model
        for renew in (False, True):
            layers = layer_map(network, bare_forward, renew=renew)
            evaluation = _Evaluation(self, layers, chunks, transformer_options.get(OVERRIDE))
            options = {**transformer_options, OVERRIDE: evaluation}
            # The lists of a ControlNet are used up by an evaluation, and a second one needs them too.
            result = executor(*inputs, _copied(control), options, **conditions)
            if not evaluation.calls:  # another node, EasyCache for one, reused an earlier evaluation
                return result
            if layers.fits(evaluation.calls):
                evaluation.check(network)
                self._seen["changed"] += 1
                return result
        raise RuntimeError(
            f"ERG cannot tell the layers of {type(network).__name__}: it made {evaluation.calls} attention calls in "
            f"this graph, but makes {len(layers.of_call)} without other nodes. Take out the node that skips or adds "
            "layers (skip layer guidance, a cache)."
        )

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
    def factor(self, chunks, rows, dimensions, dtype, device) -> torch.Tensor:
        """τ for negative rows and 1 for positive ones, shaped to scale q."""
        factor = torch.ones(rows, *(1,) * (dimensions - 1), dtype=dtype, device=device)
        factor[_negative_rows(chunks, rows, device)] = self.energy.temperature
        return factor


class _Evaluation:
    """The attention override for one evaluation of the network."""

    def __init__(self, branch: WeakBranchAttention, layers: LayerMap, chunks: tuple[int, ...], previous):
        self.branch, self.layers, self.chunks, self.previous = branch, layers, chunks, previous
        self.selected = branch.once(branch.layers.choose, layers.sections)
        self.calls = self.changed = 0
        self.calls_of_block = Counter()

    def __call__(self, attention, q, k, v, heads, *args, **kwargs):
        layer = self.layers.layer(kwargs["transformer_options"], self.calls)
        self.calls += 1
        if self.previous is not None:  # another pack's: it stays in force, and may call ComfyUI's attention itself
            attention = partial(self.previous, attention)
        if layer not in self.selected or not self._is_kind(q, k, kwargs["transformer_options"]):
            return attention(q, k, v, heads, *args, **kwargs)
        self.changed += 1
        # q is not scaled in place: some networks (Wan's image-to-video blocks) attend twice with the same queries.
        factor = self.branch.once(self.branch.factor, self.chunks, q.shape[0], q.ndim, q.dtype, q.device)
        retrieved = attention(q * factor, k, v, heads, *args, **kwargs)
        if self.branch.energy.only_scales_queries:
            return retrieved
        return self._descend(attention, retrieved, q, k, v, heads, args, kwargs)

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

    def _descend(self, attention, retrieved, q, k, v, heads, args, kwargs):
        """The general energy: the negative rows of what attention retrieved become K_iter descent steps."""
        rows = self.branch.once(_negative_rows, self.chunks, q.shape[0], q.device)
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


def _refuse_unknown_conditions(chunks: tuple[int, ...]) -> None:
    """Guiders of three conditions number them in their own ways: which one is the weak branch cannot be told."""
    if any(chunk > NEGATIVE for chunk in chunks):
        raise RuntimeError(
            "ERG works with a positive and a negative condition. This guider has more (DualCFGGuider, PerpNegGuider): "
            "use CFGGuider or a KSampler."
        )


def _refuse_compiled(transformer_options: dict) -> None:
    """Compiled networks keep the attention they were compiled with, so ERG could not be turned on and off."""
    if COMPILED in transformer_options.get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {}):
        raise RuntimeError("ERG cannot change the attention of a compiled model yet: take out TorchCompileModel.")


def _copied(control):
    return control and {name: list(outputs) for name, outputs in control.items()}


@torch.inference_mode(False)
def _negative_rows(chunks: tuple[int, ...], rows: int, device: torch.device) -> torch.Tensor:
    """Numbers of the rows that belong to a negative chunk. All chunks have equally many rows, one after the other."""
    if rows % len(chunks):
        raise RuntimeError(
            f"This model runs attention on {rows} rows for {len(chunks)} conditions: which rows are the negative "
            "ones cannot be told. Please report the model; until then, take the node out for it."
        )
    each = rows // len(chunks)
    return torch.tensor([i for i in range(rows) if chunks[i // each] == NEGATIVE], device=device)


@dataclass(frozen=True)
class _RowTaker:
    """Takes the negative rows of whatever has one row for each row of q; a mask shared by all rows stays as it is."""

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
