"""Which of torchvision's networks a file of weights is of, and how such a network is built."""

import re
from collections.abc import Callable, Mapping
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

SHOWN = 80  # characters of a text that is quoted
# Heads that only the training of a network uses.
AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
# DenseNets as torchvision published them, before the names of modules could have no dots: norm.1 for norm1.
DOTTED = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$")
POSITIONS = "encoder.pos_embedding"  # of a vision transformer: one for each patch, and one for the class


def network_of(text: str, in_metadata: bool = False) -> tuple[str, Any]:
    """Name and entry (preprocessing and more) of the published weights whose file name a text begins with, or else of
    the newest weights of the network whose name it begins with; the longest that fits, in small letters or capitals.

    in_metadata: whether the text is the file's metadata rather than its name. Raises ValueError where none fits.
    """
    import torchvision

    entries = {}
    names = torchvision.models.list_models(module=torchvision.models)
    for name in names:
        weights = torchvision.models.get_model_weights(name)
        entries[name] = name, weights.DEFAULT
        entries.update({Path(entry.url).stem: (name, entry) for entry in weights})
    fitting = [known for known in entries if re.match(rf"(?i:{re.escape(known)})(?![a-z0-9_])", text)]
    if not fitting:
        raise ValueError(_unknown(text[:SHOWN], in_metadata, names))
    return entries[max(fitting, key=len)]


def _unknown(text: str, in_metadata: bool, names: list[str]) -> str:
    """What is wrong with a text that begins with none of the names, and what to do."""
    rename = "correct the entry 'architecture' of its metadata" if in_metadata else "rename the file"
    relatives = [name for name in names if _family(name) == _family(text)]
    if relatives:
        asked = re.split(r"\W", text)[0]
        return (
            f"torchvision has no '{asked}', only {', '.join(relatives)}. If it is one of these, {rename}, with what is yours "
            f"behind a dash, such as {relatives[0]}-mine; if not, use a Hugging Face folder of the network."
        )
    return (
        f"'{text}' does not begin with the name of a torchvision classifier, such as resnet50 or vit_b_16: {rename} to name "
        "its architecture."
    )


def _family(name: str) -> str:
    """The letters that a name begins with: resnet, vit, efficientnet."""
    return re.split("[^a-z]", name.lower())[0]


def named_as_today(architecture: str, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A network's weights under the names that they have in torchvision today, without auxiliary heads."""
    unused = AUXILIARY.get(architecture, ())
    return {DOTTED.sub(r"\1\2", key): weight for key, weight in weights.items() if not key.startswith(unused)}


def entry_of_size(architecture: str, entry: Any, weights: Mapping[str, torch.Tensor]) -> Any:
    """The entry, or for a vision transformer that has learned another size of pictures the first one of that size."""
    import torchvision

    positions = weights.get(POSITIONS)
    if not architecture.startswith("vit_") or positions is None or positions.ndim != 3:
        return entry
    patches, patch = isqrt(max(positions.shape[1] - 1, 0)), int(architecture.rpartition("_")[2])
    same = [e for e in torchvision.models.get_model_weights(architecture) if e.meta["min_size"][0] == patches * patch]
    return entry if entry in same or not same else same[0]


def build(architecture: str, entry: Any, classes: int) -> torch.nn.Module:
    """The network for an entry's preprocessing with so many classes, and with weights that are no one's."""
    import torchvision

    sizes: dict[str, Any] = {"num_classes": classes}
    if architecture.startswith("vit_"):
        sizes["image_size"] = entry.meta["min_size"][0]
    if architecture in AUXILIARY:
        # The published weights of both want pictures in another range than their preprocessing gives.
        sizes |= {"aux_logits": False, "init_weights": False, "transform_input": True}
    with SizesOnCPU():
        return torchvision.models.get_model(architecture, weights=None, **sizes)


class SizesOnCPU(TorchFunctionMode):
    """Within, ranges and lists of numbers are on the CPU, whatever device is chosen for networks: RegNet computes its
    widths with them, for which the meta device has no numbers. None of them has a size that a file says."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in (torch.arange, torch.tensor):
            kwargs = {"device": "cpu", **kwargs}
        return function(*args, **kwargs)
