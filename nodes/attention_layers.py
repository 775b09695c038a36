"""Which attention call belongs to which layer of a diffusion network. ComfyUI's internals are touched here.

ComfyUI calls `transformer_options["optimized_attention_override"]` for each attention. Most networks tell it their
block (`block`, `block_type`, `block_index` in the same options); the others only keep an order of calls. Both are
learnt from one forward pass the first time that a network is sampled, so that no table of architectures is needed.
"""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch

OVERRIDE = "optimized_attention_override"
BLOCK_KEYS = ("block", "block_type", "block_index")
NOT_PART_OF_THE_NETWORK = ("wrappers", "callbacks", "patches", "patches_replace", OVERRIDE)


def block_key(options: dict) -> tuple | None:
    """What the network says of the block that is running, or None where it says nothing."""
    key = tuple(options.get(name) for name in BLOCK_KEYS)
    return None if key == (None, None, None) else key


@dataclass(frozen=True)
class LayerMap:
    """The layers of a network in order of execution.

    sections: for each layer its U-Net section ('input', 'middle', 'output') or None.
    of_key: layer number of each block key; empty for a network that tells none.
    of_call: layer number, or None, of each attention call of a forward pass, for a network that tells no keys.
    """

    sections: tuple[str | None, ...]
    of_key: dict[tuple, int]
    of_call: tuple[int | None, ...]

    def layer(self, options: dict, call: int) -> int | None:
        """The layer of an attention call; None for a call outside of the layers (a text refiner, a pooler)."""
        if self.of_key:
            return self.of_key.get(block_key(options))
        return self.of_call[call] if call < len(self.of_call) else None

    def fits(self, calls: int) -> bool:
        """Whether a forward pass of so many attention calls is one that this map describes."""
        return bool(self.of_key) or calls == len(self.of_call)


_known: WeakKeyDictionary[torch.nn.Module, LayerMap] = WeakKeyDictionary()


def layer_map(network: torch.nn.Module, forward, *, renew: bool = False) -> LayerMap:
    """The layer map of a diffusion network; the first call for a network costs one evaluation of it.

    forward: evaluates the network for given transformer options, which it completes. renew: learn the map again.
    Raises RuntimeError where no attention of the network passes through ComfyUI's override.
    """
    if renew or network not in _known:
        _known[network] = _census(network, forward)
    return _known[network]


def _census(network: torch.nn.Module, forward) -> LayerMap:
    calls: list[tuple[tuple | None, str | None]] = []
    running: list[str] = []

    def record(attention, *args, transformer_options=None, **kwargs):
        calls.append((block_key(transformer_options), running[0] if running else None))
        return attention(*args, transformer_options=transformer_options, **kwargs)

    with _BlockTrail(network, running):
        forward({OVERRIDE: record})
    if not calls:
        raise RuntimeError(
            f"The attention of {type(network).__name__} cannot be reached: this model does not pass it through "
            "ComfyUI's attention override. Nothing was changed; take the node out for this model."
        )
    return _layers(calls)


def _layers(calls) -> LayerMap:
    keys = list(dict.fromkeys(key for key, _ in calls if key is not None))
    if keys:
        return LayerMap(tuple(key[0][0] if key[0] else None for key in keys), {k: i for i, k in enumerate(keys)}, ())
    # Calls outside of any block list are layers of their own; a refiner is none, as where keys tell it apart.
    names = [name or f"call {i}" for i, (_, name) in enumerate(calls)]
    numbers = {name: i for i, name in enumerate(n for n in dict.fromkeys(names) if "refiner" not in n)}
    return LayerMap((None,) * len(numbers), {}, tuple(numbers.get(name) for name in names))


class _BlockTrail:
    """For one forward pass, keeps the names of the running blocks (entries of module lists), outermost first."""

    def __init__(self, network: torch.nn.Module, running: list[str]):
        self.network, self.running, self.handles = network, running, []

    def __enter__(self):
        for name, blocks in self.network.named_modules():
            if isinstance(blocks, (torch.nn.ModuleList, torch.nn.ModuleDict)):
                for key, block in blocks.named_children():
                    enter = block.register_forward_pre_hook(
                        lambda *_, block=f"{name}.{key}": self.running.append(block)
                    )
                    leave = block.register_forward_hook(lambda *_: self.running.pop() and None, always_call=True)
                    self.handles += [enter, leave]

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()
