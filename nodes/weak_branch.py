"""Changes the attention energy of the negative branch of guidance, for one patched clone of a model.

ComfyUI evaluates the positive and the negative condition in one batch where it can; `cond_or_uncond` in the
transformer options names the condition of each chunk of rows (0 positive, 1 negative). The wrapper below runs around
each evaluation of the network and hands it an attention override that knows the rows of this evaluation. All state
lives in that evaluation's own options: nothing stays behind after an interrupt, an exception or the sampling.
"""

from dataclasses import dataclass, field
from functools import partial

import torch

from ..guidance_core.attention_energy import AttentionEnergy, step
from ..guidance_core.layer_selection import LayerSelection
from .attention_layers import OVERRIDE, LayerMap, layer_map
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

    def __call__(
        self, executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **conditions
    ):
        model = executor.class_obj
        if NEGATIVE in transformer_options.get("cond_or_uncond", ()) and self._is_time(t, model.model_sampling):
            inputs = (x, t, c_concat, c_crossattn)
            layers = layer_map(model.diffusion_model, executor.original, inputs, transformer_options, conditions)
            transformer_options = {**transformer_options, OVERRIDE: self._override(layers, transformer_options)}
        return executor(x, t, c_concat, c_crossattn, control, transformer_options, **conditions)

    def _once(self, make, *key):
        """make(*key), computed once for each key: whatever does not change from step to step."""
        if (make, *key) not in self._made:
            self._made[make, *key] = make(*key)
        return self._made[make, *key]

    def _is_time(self, sigma, model_sampling) -> bool:
        if self.window.is_everything:  # spares reading sigma, which waits for the device
            return True
        start, end = self._once(self.window.sigmas, model_sampling)
        return end <= sigma[0].item() <= start

    def _override(self, layers: LayerMap, options: dict):
        """The attention override for one evaluation of the network."""
        selected = self._once(self.layers.choose, layers.sections)
        chunks = tuple(options["cond_or_uncond"])
        previous = options.get(OVERRIDE)
        calls = 0

        def attend(attention, q, k, v, heads, *args, **kwargs):
            nonlocal calls
            call, calls = calls, calls + 1
            if previous is not None:  # another pack's: it stays in force, and may call ComfyUI's attention itself
                attention = partial(previous, attention)
            if layers.layer(kwargs["transformer_options"], call) not in selected or not self._is_kind(q, k):
                return attention(q, k, v, heads, *args, **kwargs)
            # q is not scaled in place: some networks attend twice with the same queries.
            factor = self._once(self._factor, chunks, q.shape[0], q.ndim, q.dtype, q.device)
            retrieved = attention(q * factor, k, v, heads, *args, **kwargs)
            if self.energy.only_scales_queries:
                return retrieved
            rows = self._once(_negative_rows, chunks, q.shape[0], q.device)
            return self._descend(attention, retrieved, q, k, v, heads, rows, args, kwargs)

        return attend

    def _is_kind(self, q, k) -> bool:
        # Cross-attention reads another sequence than its queries; ComfyUI does not tell which call it is.
        return self.kind == "all" or (self.kind == "cross") == (q.shape[-2] != k.shape[-2])

    @torch.inference_mode(False)
    def _factor(self, chunks, rows, dimensions, dtype, device) -> torch.Tensor:
        """τ for negative rows and 1 for positive ones, shaped to scale q."""
        factor = torch.ones(rows, *(1,) * (dimensions - 1), dtype=dtype, device=device)
        factor[_negative_rows(chunks, rows, device)] = self.energy.temperature
        return factor

    def _descend(self, attention, retrieved, q, k, v, heads, rows, args, kwargs):
        """The general energy: the negative rows of what attention retrieved become K_iter descent steps."""
        take = _RowTaker(rows, q.shape[0])
        layout = _OutputLayout(heads, kwargs)
        state = step(layout.of_queries(q[rows], retrieved), retrieved[rows], self.energy)
        k, v, args, kwargs = take(k), take(v), tuple(map(take, args)), {n: take(a) for n, a in kwargs.items()}
        for _ in range(self.energy.iterations - 1):
            again = attention(layout.to_queries(state, q) * self.energy.temperature, k, v, heads, *args, **kwargs)
            state = step(state, again, self.energy)
        return retrieved.index_copy(0, rows, state)


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
