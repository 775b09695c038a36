"""Image classifiers as state dicts of torchvision networks, such as resnet50-11ad3fa6.pth or vit_b_16.safetensors."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from .rehearsal import check_fits, on_meta
from .weights import NOTES, class_names, notes_of, weight_shape


class TorchvisionClassifier(torch.nn.Sequential):
    """A network after its preprocessing. architecture: the metadata that `load` finds both by."""

    suffix = ".safetensors"

    def __init__(self, transforms: torch.nn.Module, network: torch.nn.Module, architecture: str) -> None:
        super().__init__(transforms, network)
        self.architecture = architecture

    def save(self, path: Path, labels: tuple[str, ...], notes: dict[str, Any]) -> None:
        """Writes the file that `load` reads."""
        metadata = {"architecture": self.architecture, "labels": json.dumps(labels), NOTES: json.dumps(notes)}
        save_file(self[1].state_dict(), path, metadata)


def load(
    weights: dict[str, torch.Tensor], metadata: dict[str, str], stem: str
) -> tuple[torch.nn.Module, list[str], dict[str, Any]]:
    """A module from images [B, 3, H, W] in 0..1 to logits, the class names, and how it was calibrated. stem: the file's name.

    The architecture is the metadata's entry 'architecture', or the file name's beginning. Raises ValueError for
    weights that do not fit.
    """
    import torchvision

    architecture, entry = _architecture(metadata.get("architecture") or stem)
    classes = _count_classes(architecture, weights)
    _check_shapes(architecture, classes, weights)
    network = torchvision.models.get_model(architecture, weights=None, num_classes=classes)
    if hasattr(network, "transform_input"):  # Inception and GoogLeNet, whose published weights want it
        network.transform_input = True
    fit = network.load_state_dict(weights, strict=False)
    if fit.missing_keys or fit.unexpected_keys:
        raise ValueError(
            f"it does not fit {architecture}: {len(fit.missing_keys)} weights are missing and "
            f"{len(fit.unexpected_keys)} unknown, such as {[*fit.missing_keys, *fit.unexpected_keys][0]}."
        )
    return (
        TorchvisionClassifier(entry.transforms(), network, Path(entry.url).stem),
        class_names(metadata, classes),
        notes_of(metadata),
    )


def _check_shapes(architecture: str, classes: int, weights: dict[str, torch.Tensor]) -> None:
    """Raises ValueError where weights are of other shapes than such a network's."""
    import torchvision

    network = on_meta(
        lambda: torchvision.models.get_model(architecture, weights=None, num_classes=classes), len(weights)
    )
    check_fits(network, {key: weight.shape for key, weight in weights.items()})


def _count_classes(architecture: str, weights: dict[str, torch.Tensor]) -> int:
    """The length of the last bias, which is the one of the classes."""
    import torchvision

    with torch.device("meta"):
        last = list(torchvision.models.get_model(architecture, weights=None).state_dict())[-1]
    if last not in weights:
        raise ValueError(f"the weights are not those of {architecture}: '{last}' is missing.")
    return weight_shape(weights, last, 1)[0]


def _architecture(text: str) -> Any:
    """Name and entry (preprocessing and more) of the published weights whose file name a text begins with, or else of
    the newest weights of the network whose name it begins with; the longest that fits."""
    import torchvision

    entries = {}
    for name in torchvision.models.list_models(module=torchvision.models):
        weights = torchvision.models.get_model_weights(name)
        entries[name] = name, weights.DEFAULT
        entries.update({Path(entry.url).stem: (name, entry) for entry in weights})
    fitting = [known for known in entries if re.match(rf"{re.escape(known)}(?![a-z0-9_])", text)]
    if not fitting:
        raise ValueError(
            f"'{text}' does not begin with the name of a torchvision classifier, such as resnet50 or vit_b_16: rename "
            "the file to name its architecture."
        )
    return entries[max(fitting, key=len)]
