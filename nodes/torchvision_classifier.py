"""Image classifiers as state dicts of torchvision networks, such as resnet50-11ad3fa6.pth or vit_b_16.safetensors."""

import json
import pickle
import re
from pathlib import Path

import torch


def load(path: Path, prompts: tuple[str, ...]) -> tuple[torch.nn.Module, list[str]]:
    """A module from images [B, 3, H, W] in 0..1 to logits, and the class names.

    The architecture is the entry 'architecture' of a safetensors file's metadata, or the file name's beginning. Class
    names are the metadata's 'labels' (a JSON list), for 1000 classes ImageNet's, and numbers otherwise.
    """
    import torchvision

    if prompts:
        raise ValueError("prompts are for zero-shot models; this one has classes of its own. Leave prompts empty.")
    weights, metadata = _read(path)
    architecture = _architecture(metadata.get("architecture") or path.stem)
    entry = torchvision.models.get_model_weights(architecture).DEFAULT
    classes = _count_classes(architecture, weights)
    network = torchvision.models.get_model(architecture, weights=None, num_classes=classes)
    fit = network.load_state_dict(weights, strict=False)
    if fit.missing_keys or fit.unexpected_keys:
        raise ValueError(
            f"{path} does not fit {architecture}: {len(fit.missing_keys)} weights are missing and "
            f"{len(fit.unexpected_keys)} unknown, such as {[*fit.missing_keys, *fit.unexpected_keys][0]}."
        )
    labels = json.loads(metadata["labels"]) if "labels" in metadata else _labels(classes, entry)
    return torch.nn.Sequential(entry.transforms(), network), labels


def _count_classes(architecture: str, weights: dict[str, torch.Tensor]) -> int:
    """The length of the last bias, which is the one of the classes."""
    import torchvision

    with torch.device("meta"):
        last = list(torchvision.models.get_model(architecture, weights=None).state_dict())[-1]
    if last not in weights:
        raise ValueError(f"the weights are not those of {architecture}: '{last}' is missing.")
    return len(weights[last])


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}).") from error
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is damaged, or holds more than weights, which is not run.") from error
    if not isinstance(weights, dict) or not all(map(torch.is_tensor, weights.values())):
        raise ValueError(f"{path} is not a state dict of tensors.")
    return weights, {}


def _architecture(text: str) -> str:
    """The longest name of a torchvision classifier that a text begins with."""
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    fitting = [name for name in known if re.match(rf"{re.escape(name)}(?![a-z0-9_])", text)]
    if not fitting:
        raise ValueError(
            f"'{text}' does not begin with the name of a torchvision classifier, such as resnet50 or vit_b_16: rename "
            "the file to name its architecture."
        )
    return max(fitting, key=len)


def _labels(classes: int, entry) -> list[str]:
    names = entry.meta["categories"]
    return names if len(names) == classes else [str(i) for i in range(classes)]
