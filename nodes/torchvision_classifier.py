"""Image classifiers as state dicts of torchvision networks, such as resnet50-11ad3fa6.pth or vit_b_16.safetensors."""

import re

import torch

from .classifier_weights import class_names


def load(weights: dict[str, torch.Tensor], metadata: dict[str, str], stem: str) -> tuple[torch.nn.Module, list[str]]:
    """A module from images [B, 3, H, W] in 0..1 to logits, and the class names. stem: the file's name.

    The architecture is the metadata's entry 'architecture', or the file name's beginning. Raises ValueError for
    weights that do not fit.
    """
    import torchvision

    architecture = _architecture(metadata.get("architecture") or stem)
    entry = torchvision.models.get_model_weights(architecture).DEFAULT
    classes = _count_classes(architecture, weights)
    network = torchvision.models.get_model(architecture, weights=None, num_classes=classes)
    fit = network.load_state_dict(weights, strict=False)
    if fit.missing_keys or fit.unexpected_keys:
        raise ValueError(
            f"it does not fit {architecture}: {len(fit.missing_keys)} weights are missing and "
            f"{len(fit.unexpected_keys)} unknown, such as {[*fit.missing_keys, *fit.unexpected_keys][0]}."
        )
    return torch.nn.Sequential(entry.transforms(), network), class_names(metadata, classes)


def _count_classes(architecture: str, weights: dict[str, torch.Tensor]) -> int:
    """The length of the last bias, which is the one of the classes."""
    import torchvision

    with torch.device("meta"):
        last = list(torchvision.models.get_model(architecture, weights=None).state_dict())[-1]
    if last not in weights:
        raise ValueError(f"the weights are not those of {architecture}: '{last}' is missing.")
    return len(weights[last])


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
