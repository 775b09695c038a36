"""Gradients through modules whose weights ComfyUI loaded in inference mode, or left off the device."""

from collections.abc import Container

import torch


class NormalWeights:
    """Calls modules while ComfyUI runs in inference mode, with gradients where they are enabled.

    Weights that were loaded or moved in inference mode are inference tensors, which autograd refuses to keep for a
    backward pass; weights that ComfyUI streams to the device would be gone by then, or be left off it. This holds normal
    copies of such weights on the inputs' device, made at the first call of a module or before it, until `clear`; of what
    ComfyUI moves off the device in the meantime, such as for the decoder of a preview, at the next call.

    A module may say in `unread` how the names of weights begin that its forward does not read: those are not copied.
    """

    def __init__(self) -> None:
        self._copies: dict[torch.nn.Module, dict[str, torch.Tensor]] = {}

    def __call__(self, module: torch.nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
        self.prepare(module, inputs[0].device)
        return torch.func.functional_call(module, self._copies[module], inputs)

    def prepare(self, module: torch.nn.Module, device: torch.device) -> None:
        """Makes the copies that a call with inputs on this device takes, with gradients where they are enabled now."""
        copies = self._copies.setdefault(module, {})
        device = torch.empty(0, device=device).device  # with its number
        copies |= _copies(module, device, torch.is_grad_enabled(), copies)

    def clear(self) -> None:
        self._copies.clear()


@torch.inference_mode(False)
def _copies(
    module: torch.nn.Module, device: torch.device, with_gradients: bool, there: Container[str]
) -> dict[str, torch.Tensor]:
    """Those that are wanted and not there yet."""
    unread = getattr(module, "unread", ())
    return {
        name: weight.detach().to(device, copy=True)
        for name, weight in (*module.named_parameters(), *module.named_buffers())
        if name not in there
        and not name.startswith(unread)
        and (with_gradients and weight.is_inference() or weight.device != device)
    }
