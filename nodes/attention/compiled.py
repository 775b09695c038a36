"""ERG in a network that torch.compile has compiled (TorchCompileModel), without a graph break or a recompilation a step.

ComfyUI tells torch.compile not to look at the transformer options: code that was compiled once runs with whatever
override it was compiled with. So the override below has no state of its own. What differs from step to step and from
node to node is a tensor in the options, which compiled code takes as its input: the factor of each row of q in each
attention call, 1 where nothing is changed. While it is in force a twin of the network runs, the same modules and weights with
a forward of its own (the same code under another identity, by which torch.compile tells what it has compiled), in the
place where ComfyUI's own wrapper puts its compiled network. The network itself and its compiled code stay as they are.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from types import MethodType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from comfy.patcher_extension import WrapperExecutor
from comfy_api.torch_helpers.torch_compile import apply_torch_compile_factory

from ..common.want_of_memory import is_want_of_memory
from .layers import LayerMap, replaced_blocks
from .network_call import OVERRIDE, NetworkCall, with_innermost
from .our_override import stays_in_force
from .rebinding import with_code_of_its_own
from .rows import scale_of_rows

FACTORS = "entropy_guidance_factors"  # in transformer options: [attention calls, rows]
CALL = "entropy_guidance_call"  # in transformer options: [the number of the next attention call]
PREVIOUS = "entropy_guidance_previous"  # in transformer options: the override that was there before

# Networks that torch.compile cannot take as a whole, by what is patched in them.
_in_pieces: WeakKeyDictionary[torch.nn.Module, set[frozenset[str]]] = WeakKeyDictionary()
_twins: WeakKeyDictionary[torch.nn.Module, dict[str, Any]] = WeakKeyDictionary()  # compiled, by how they were


def can_run_compiled(call: NetworkCall) -> bool:
    """Whether a call of a network is one that `run_compiled` may try.

    It is not where parts of the network are compiled apart, where threads of several GPUs would share what it sets, and where
    another node has replaced the network's forward or may give attention rows of its own.
    """
    return (
        call.is_compiled
        and call.patched not in _in_pieces.get(call.network, ())
        and "multigpu_thread_device" not in call.options
        and call.compiled_parts == ["diffusion_model"]
        and "forward" not in vars(call.network)
        and not any(name.startswith("attn") for name in call.options.get("patches", ()))
    )


@dataclass
class CompiledTempering:
    """Scales the queries of the weak branch by τ in compiled code."""

    temperature: float
    # They do not change from step to step.
    _factors: dict[tuple[Any, ...], torch.Tensor] = field(default_factory=dict, repr=False)
    # Forward passes that are to run without compiled code.
    _refused: set[tuple[Any, ...]] = field(default_factory=set, repr=False)

    def run(
        self, call: NetworkCall, layers: LayerMap, selected: frozenset[int], labels: tuple[bool, ...]
    ) -> tuple[torch.Tensor, bool] | None:
        """What `run_compiled` gives. labels: of each row, as the network runs them."""
        forward = layers.of_calls, replaced_blocks(call.options)
        if forward in self._refused:
            return None
        key = labels, tuple(layer in selected for layer in layers.of_calls), call.inputs[0].device
        if key not in self._factors:
            self._factors[key] = _factors(self.temperature, *key)
        try:
            found = run_compiled(call, self._factors[key])
        # What was compiled before still runs compiled.
        except getattr(torch._dynamo.exc, "FailOnRecompileLimitHit", ()):
            return None
        if found is None:
            self._refused.add(forward)
        return found


@torch.inference_mode(False)
def _factors(
    temperature: float, labels: tuple[bool, ...], changed: tuple[bool, ...], device: torch.device
) -> torch.Tensor:
    """For each attention call of a network, and each row of its batch, what scales its queries: [calls, rows]."""
    factors = torch.ones(len(changed), len(labels), device=device)
    factors[list(changed)] = scale_of_rows(labels, len(labels), 1, temperature, factors.dtype, device)
    return factors


def run_compiled(call: NetworkCall, factors: torch.Tensor) -> tuple[torch.Tensor, bool] | None:
    """The prediction with scaled queries, and whether the network ran for it; another node may reuse an earlier one.

    factors: [attention calls, rows]. None where compiled code cannot do it: where the network makes another number of
    calls, or calls with rows that these do not fit, and where torch.compile cannot take the network as a whole: code that it
    compiled apart for the parts would be shared with other clones. Raises FailOnRecompileLimitHit where torch.compile has
    compiled for as many shapes as it may.
    """
    previous = call.options.get(OVERRIDE)
    if previous is scale_queries:  # of another ERG node around this one
        previous, factors = call.options[PREVIOUS], factors * call.options[FACTORS]
    scaled = [0]
    try:
        result = replace(call, executor=_with_twin(call)).run(
            {OVERRIDE: scale_queries, FACTORS: factors, CALL: scaled, PREVIOUS: previous}, compiled=True
        )
    except torch._dynamo.exc.TorchDynamoException as error:
        if isinstance(error, torch._dynamo.exc.Unsupported) or not is_want_of_memory(error):
            _in_pieces.setdefault(call.network, set()).add(call.patched)
        return None
    return (result, scaled[0] > 0) if scaled[0] in (0, len(factors)) else None


def _with_twin(call: NetworkCall) -> WrapperExecutor:
    """The rest of an evaluation, with the compiled twin as the network."""
    wrapper = apply_torch_compile_factory({"diffusion_model": _twin(call.network, call.compile_options)})
    return with_innermost(call.executor, wrapper)


def _twin(network: torch.nn.Module, options: dict[str, Any]) -> torch.nn.Module:
    twins = _twins.setdefault(network, {})
    key = str(options)
    if key not in twins:
        twin = copy.copy(network)  # of the module alone: its parameters, buffers and modules are the network's
        twins[key] = torch.compile(twin, **{**options, "fullgraph": True})
    twin = twins[key]._orig_mod
    vars(twin).update({name: _of(twin, network, value) for name, value in vars(network).items()})  # patches come and go
    vars(twin)["forward"] = MethodType(with_code_of_its_own(type(network).forward), twin)
    return twins[key]


def _of(twin: torch.nn.Module, network: torch.nn.Module, value: Any) -> Any:
    """An attribute of a network as its twin's: a method that was put into the network would keep it alive in there."""
    return MethodType(value.__func__, twin) if getattr(value, "__self__", None) is network else value


def scale_queries(
    attention: Callable[..., torch.Tensor],
    q: torch.Tensor,
    *args: Any,
    transformer_options: dict[str, Any],
    **kwargs: Any,
) -> torch.Tensor:
    """An attention override that scales each row of q by its factor, and counts the calls in which it could."""
    number, factors = transformer_options[CALL][0], transformer_options[FACTORS]
    previous = transformer_options[PREVIOUS]
    if previous is not None and stays_in_force(previous, transformer_options):
        attention = partial(previous, attention)
    if number < len(factors) and q.shape[0] % factors.shape[1] == 0:
        transformer_options[CALL][0] += 1
        of_rows = factors[number].to(q.dtype).repeat_interleave(q.shape[0] // factors.shape[1])
        q = q * of_rows.view(-1, *(1,) * (q.ndim - 1))
    return attention(q, *args, transformer_options=transformer_options, **kwargs)
