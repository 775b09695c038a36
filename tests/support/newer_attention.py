"""Attention as ComfyUI calls it from 0.40 on, put around the call sites of an older one.

q, k and v come in containers that give them away once, beside the attention function that the checkpoint prefers.
"""

import sys
from contextlib import contextmanager

import comfy.ldm.modules.attention
import torch

OVERRIDE = "optimized_attention_override"


class Container:
    """A single owner's tensor."""

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor

    def peek(self) -> torch.Tensor:
        assert self.tensor is not None, "taken twice"
        return self.tensor

    def take(self) -> torch.Tensor:
        tensor, self.tensor = self.peek(), None
        return tensor


class ComfyAttention(torch.nn.Module):
    """What a network's attention holds there: the function that its checkpoint asks for."""

    def __init__(self, function=None):
        super().__init__()
        self.function = function


def rounding(q, k, v, heads, *args, **kwargs):
    """A preferred attention that is coarse enough to be told from any other."""
    kwargs.pop("transformer_options", None)
    return comfy.ldm.modules.attention.attention_pytorch((q * 4).round() / 4, k, v, heads, *args, **kwargs)


def _call(backend, q, k, v, *args, preferred_attention=None, **kwargs):
    override = (kwargs.get("transformer_options") or {}).get(OVERRIDE)
    kwargs["_inside_attn_wrapper"] = True
    if override is not None:
        assert not hasattr(override, "container_function"), "it would be given containers and no function"
        hash(override)
        return override(backend, q.take(), k.take(), v.take(), *args, **kwargs)
    function = backend if preferred_attention is None else preferred_attention.function
    return function(q.take(), k.take(), v.take(), *args, **kwargs)


@contextmanager
def newer_call_sites(monkeypatch, preferred: ComfyAttention | None = None):
    """Within, every network calls attention in the newer way."""
    ours = comfy.ldm.modules.attention.optimized_attention
    backend = ours.__wrapped__

    def call_site(q, k, v, heads, *args, **kwargs):
        if not args:
            kwargs["heads"] = heads
        places = (heads, *args) if args else ()
        q, k, v = (tensor if not torch.is_tensor(tensor) else Container(tensor) for tensor in (q, k, v))
        return _call(backend, q, k, v, *places, preferred_attention=preferred, **kwargs)

    with monkeypatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.startswith("comfy.ldm."):
                for attribute in ("optimized_attention", "optimized_attention_masked"):
                    if vars(module).get(attribute) is ours:
                        patch.setattr(module, attribute, call_site)
        yield
