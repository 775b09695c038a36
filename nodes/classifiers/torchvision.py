"""Image classifiers as state dicts of torchvision networks, such as resnet50-11ad3fa6.pth or vit_b_16.safetensors."""

import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from .heads import names_of_logits
from .rehearsal import check_fits, on_meta
from .torchvision_networks import build, entry_of_size, named_as_today, network_of
from .weights import NOTES, class_names, notes_of


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
    named = metadata.get("architecture")
    architecture, entry = network_of(named or stem, in_metadata=bool(named))
    weights = named_as_today(architecture, weights)
    entry = entry_of_size(architecture, entry, weights)
    classes = count_classes(architecture, entry, weights)
    planned(architecture, entry, classes, weights)
    network = build(architecture, entry, classes)
    fit = network.load_state_dict(_of_this_version(network, weights), strict=False)
    if fit.missing_keys or fit.unexpected_keys:
        raise ValueError(
            f"it does not fit {architecture}: {len(fit.missing_keys)} weights are missing and "
            f"{len(fit.unexpected_keys)} unknown, such as {[*fit.missing_keys, *fit.unexpected_keys][0]}."
        )
    module = TorchvisionClassifier(entry.transforms(), network, Path(entry.url).stem)
    return module, names_of_logits(module, classes, class_names(metadata, classes)), notes_of(metadata)


def count_classes(architecture: str, entry: Any, weights: Mapping[str, torch.Tensor]) -> int:
    """The length of the last weight, which is that of the classes. Raises ValueError where there is none."""
    with torch.device("meta"):
        last = list(build(architecture, entry, 2).state_dict())[-1]
    if last not in weights or not any(weights[last].shape[:1]):
        raise ValueError(f"the weights are not those of {architecture}: '{last}' is missing or empty.")
    return weights[last].shape[0]


def planned(architecture: str, entry: Any, classes: int, weights: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """The network on the meta device. Raises ValueError where weights are of other shapes than its own."""
    network = on_meta(lambda: build(architecture, entry, classes), len(weights))
    check_fits(network, {key: weight.shape for key, weight in weights.items()})
    return network


def _of_this_version(network: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
    """Weights for `load_state_dict`, which for MNASNet wants to be told a version: safetensors have none. Its parts are told
    none, so that they rename and complete what is older."""
    told = OrderedDict(weights)
    told._metadata = {"": {"version": network._version}}  # type: ignore[attr-defined]  # as PyTorch does
    return told
