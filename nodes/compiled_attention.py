"""ERG in a network that torch.compile has compiled (TorchCompileModel), without a graph break or a recompilation.

ComfyUI tells torch.compile not to look at the transformer options: code that was compiled once runs with whatever
override it was compiled with. So the override below has no state of its own. What differs from step to step and from
node to node is a tensor in the options, which compiled code takes as its input: the factor of each row of q in each
attention call, 1 where nothing is changed. It is there in every evaluation of a clone with ERG, also outside of ERG's
window. The clone runs a copy of the network's forward (attention_reach.py), the same code under another identity, because
what was compiled with and without the override would be taken for one another.
"""

from functools import partial
from weakref import WeakSet

import torch

from .network_call import OVERRIDE, NetworkCall

FACTORS = "entropy_guidance_factors"  # in transformer options: [attention calls, rows]
CALL = "entropy_guidance_call"  # in transformer options: [the number of the next attention call]
PREVIOUS = "entropy_guidance_previous"  # in transformer options: another pack's override

_breaks: WeakSet[torch.nn.Module] = WeakSet()  # networks that compile in pieces


def runs_compiled(call: NetworkCall) -> bool:
    """Whether a call of a network is one that `run_compiled` may try. Threads of several GPUs run without compiled code."""
    return call.is_compiled and call.network not in _breaks and "multigpu_thread_device" not in call.options


def run_compiled(call: NetworkCall, factors: torch.Tensor):
    """The prediction with scaled queries, or None where compiled code cannot do it.

    factors: [attention calls, rows]. None is returned where the network makes another number of calls, and where torch.compile breaks its graph, so that code inside of it would be shared with other
    clones: what was compiled is dropped then, and the network is run without compiled code from then on.
    """
    previous = call.options.get(OVERRIDE)
    if previous is scale_queries:  # of another ERG node around this one
        previous, factors = call.options[PREVIOUS], factors * call.options[FACTORS]
    number = [0]
    breaks = _graph_breaks()
    result = call.run(**{OVERRIDE: scale_queries, FACTORS: factors, CALL: number, PREVIOUS: previous})
    if _graph_breaks() != breaks:
        _breaks.add(call.network)
        torch.compiler.reset()
        return None
    return result if number[0] in (0, len(factors)) else None


def scale_queries(attention, q, *args, transformer_options, **kwargs):
    """An attention override that scales each row of q by its factor."""
    number, factors = transformer_options[CALL][0], transformer_options[FACTORS]
    transformer_options[CALL][0] += 1
    previous = transformer_options[PREVIOUS]
    if previous is not None:
        attention = partial(previous, attention)
    if number < len(factors) and q.shape[0] % factors.shape[1] == 0:
        of_rows = factors[number].to(q.dtype).repeat_interleave(q.shape[0] // factors.shape[1])
        q = q * of_rows.view(-1, *(1,) * (q.ndim - 1))
    return attention(q, *args, transformer_options=transformer_options, **kwargs)


def _graph_breaks() -> int:
    from torch._dynamo.utils import counters  # takes seconds to import, and has been by whoever compiles

    return sum(counters["graph_break"].values())
