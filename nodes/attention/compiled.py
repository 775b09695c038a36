"""ERG in a network that torch.compile has compiled (TorchCompileModel), without a graph break or a recompilation a step.

ComfyUI tells torch.compile not to look at the transformer options: code that was compiled once runs with whatever
override it was compiled with. So the override below has no state of its own. What differs from step to step and from
node to node is a tensor in the options, which compiled code takes as its input: the factor of each row of q in each
attention call, 1 where nothing is changed. While it is in force the network runs a copy of its forward, the same code
under another identity, because what was compiled with and without an override would be taken for one another.
"""

import inspect
from dataclasses import dataclass, field
from functools import partial
from types import MethodType
from weakref import WeakSet

import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY

from .layers import LayerMap, replaced_blocks
from .network_call import OVERRIDE, NetworkCall
from .reach import REACHED, order_of_rows
from .rebinding import with_code_of_its_own
from .rows import scale_of_rows
from .tempered_attention import TemperedAttention

FACTORS = "entropy_guidance_factors"  # in transformer options: [attention calls, rows]
CALL = "entropy_guidance_call"  # in transformer options: [the number of the next attention call]
PREVIOUS = "entropy_guidance_previous"  # in transformer options: the override that was there before

_breaks: WeakSet[torch.nn.Module] = WeakSet()  # networks that torch.compile takes in pieces


def can_run_compiled(call: NetworkCall) -> bool:
    """Whether a call of a network is one that `run_compiled` may try.

    It is not where parts of the network are compiled apart, where threads of several GPUs would share what it sets, and
    where another node has replaced the network's forward.
    """
    if not call.is_compiled or call.network in _breaks or "multigpu_thread_device" in call.options:
        return False
    compile_wrappers = call.options["wrappers"][WrappersMP.APPLY_MODEL][COMPILE_KEY]
    modules = [
        inspect.getclosurevars(wrapper).nonlocals.get("compiled_module_dict", ()) for wrapper in compile_wrappers
    ]
    forward = vars(call.network).get("forward")
    is_replaced = forward is not None and getattr(forward, "__func__", None) is not _copy_of_forward(call.network)
    return all(list(compiled) == ["diffusion_model"] for compiled in modules) and not is_replaced


def _copy_of_forward(network: torch.nn.Module):
    return with_code_of_its_own(type(network).forward)


@dataclass
class CompiledTempering:
    """Scales the queries of the weak branch by τ in compiled code."""

    temperature: float
    _factors: dict = field(default_factory=dict, repr=False)  # they do not change from step to step
    _refused: set = field(default_factory=set, repr=False)  # forward passes that are to run without compiled code

    def run(self, call: NetworkCall, layers: LayerMap, selected: frozenset[int], weak: tuple[bool, ...]):
        """The prediction, or None where compiled code cannot do it. weak: of each chunk, as ComfyUI orders them."""
        forward = layers.layers_of_calls, replaced_blocks(call.options)
        if forward in self._refused:
            return None
        rows = len(call.inputs[0])
        key = (order_of_rows(call.network, weak, rows), rows, layers.layers_of_calls, call.inputs[0].device)
        if key not in self._factors:
            self._factors[key] = _factors(self.temperature, *key, selected)
        result = run_compiled(call, self._factors[key])
        if result is None:
            self._refused.add(forward)
        return result


@torch.inference_mode(False)
def _factors(temperature: float, weak, rows: int, layers_of_calls, device, selected) -> torch.Tensor:
    """For each attention call of a network, and each row of its batch, what scales its queries: [calls, rows]."""
    factors = torch.ones(len(layers_of_calls), rows, device=device)
    if any(weak):
        tempered = scale_of_rows(weak, rows, 1, temperature, factors.dtype, device)
        factors[[layer in selected for layer in layers_of_calls]] = tempered
    return factors


def run_compiled(call: NetworkCall, factors: torch.Tensor):
    """The prediction with scaled queries, or None where compiled code cannot do it.

    factors: [attention calls, rows]. None is returned where the network makes another number of calls, or calls with rows
    that these do not fit, and where torch.compile breaks its graph, so that code inside of it would be shared with other
    clones: all that was compiled in this process is dropped then, once, and the network runs without compiled code from
    then on.
    """
    previous = call.options.get(OVERRIDE)
    if previous is scale_queries:  # of another ERG node around this one
        previous, factors = call.options[PREVIOUS], factors * call.options[FACTORS]
    scaled, breaks, network = [0], _graph_breaks(), call.network
    vars(network)["forward"] = MethodType(_copy_of_forward(network), network)
    try:
        result = call.run(
            compiled=True, **{OVERRIDE: scale_queries, FACTORS: factors, CALL: scaled, PREVIOUS: previous}
        )
    finally:
        vars(network).pop("forward", None)
    if _graph_breaks() != breaks:
        _breaks.add(network)
        torch.compiler.reset()
        return None
    return result if scaled[0] in (0, len(factors)) else None  # 0: another node reused an earlier evaluation


def scale_queries(attention, q, *args, transformer_options, **kwargs):
    """An attention override that scales each row of q by its factor, and counts the calls in which it could."""
    number, factors = transformer_options[CALL][0], transformer_options[FACTORS]
    previous = transformer_options[PREVIOUS]
    if previous is not None and (REACHED not in transformer_options or isinstance(previous, TemperedAttention)):
        attention = partial(previous, attention)
    if number < len(factors) and q.shape[0] % factors.shape[1] == 0:
        transformer_options[CALL][0] += 1
        of_rows = factors[number].to(q.dtype).repeat_interleave(q.shape[0] // factors.shape[1])
        q = q * of_rows.view(-1, *(1,) * (q.ndim - 1))
    return attention(q, *args, transformer_options=transformer_options, **kwargs)


def _graph_breaks() -> int:
    from torch._dynamo.utils import counters  # takes seconds to import, and has been by whoever compiles

    return sum(counters["graph_break"].values())
