"""State dicts as trainings save them: beside an optimizer and its like, averaged, or of a network inside of a wrapper."""

import logging
from typing import Any

import torch

AVERAGED = ("ema", "model_ema", "state_dict_ema", "ema_state_dict")
PLAIN = ("model", "state_dict", "model_state_dict", "net")
# Of DistributedDataParallel and averages, torch.compile, Lightning, and, within the last, of checkpoints that ComfyUI saves.
WRAPPERS = ("module.", "_orig_mod.", "model.", "diffusion_model.")
COUNT = "n_averaged"  # what torch.optim.swa_utils.AveragedModel has beside its network


def state_dict_in(content: Any, source: str) -> dict[str, torch.Tensor]:
    """The state dict that a file's content is, or holds under one of the usual names; of several the averaged one, which is
    logged. source: the file's name. Raises ValueError where there is none, or none that is the only one of its kind."""
    if _is_state_dict(content):
        return content
    for names in (AVERAGED, PLAIN):
        held = [name for name in names if isinstance(content, dict) and _is_state_dict(content.get(name))]
        if len(held) > 1:
            raise ValueError(f"{source} holds several state dicts, {', '.join(held)}: save one of them alone.")
        if held and names is AVERAGED:
            logging.info("%r: of what the training saved, the averaged weights '%s' are used.", source, held[0])
        if held:
            return content[held[0]]
    raise ValueError(
        f"{source} is not a state dict of tensors, and has none under {', '.join((*PLAIN, *AVERAGED))}: save the network's "
        "state_dict() alone."
    )


def _is_state_dict(content: Any) -> bool:
    return isinstance(content, dict) and bool(content) and all(map(torch.is_tensor, content.values()))


def unwrapped(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without the names of wrappers that all weights have in common."""
    for _ in WRAPPERS:  # one in another
        names = weights.keys() - {COUNT}
        prefix = next((wrapper for wrapper in WRAPPERS if all(name.startswith(wrapper) for name in names)), None)
        if not names or prefix is None:
            break
        weights = {name.removeprefix(prefix): weights[name] for name in weights if name in names}
    return weights
