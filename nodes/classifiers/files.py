"""Finds classifiers in ComfyUI's model folder `classifiers`, and loads each by its format.

A folder with a config.json is a Hugging Face model; a .safetensors, .pth or .pt file is a noise-aware classifier or a
torchvision network. Nothing in a file is executed: weights are read as safetensors or with `weights_only`.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import folder_paths
import torch

from ..common import printable, printable_cause
from .adm_file import is_adm
from .claims import check_name, words_of
from .guidance_classifier import GuidanceClassifier, guidance_classifier
from .weights import read_weights

FOLDER = "classifiers"
DEMO = "entropy-guidance-demo"
_WEIGHTS = Path(__file__).parents[2] / "demo" / "weights"
BUNDLED = {
    DEMO: _WEIGHTS / "classifier",
    "entropy-guidance-demo-classes": _WEIGHTS / "classes" / "classifier",
    "entropy-guidance-demo-classes-noise-aware": _WEIGHTS / "classes" / "32x32_classifier.safetensors",
}
WEIGHT_FILES = (".safetensors", ".pth", ".pt")
LONGEST_NAME = 200  # bytes

folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.get_output_directory()) / FOLDER))  # what is saved


def classifier_names() -> list[str]:
    """What the loader offers: paths below the model folders, with forward slashes."""
    found = {name for root in map(Path, folder_paths.get_folder_paths(FOLDER)) for name in _names_below(root)}
    return [*BUNDLED, *sorted(found - BUNDLED.keys())]


def _names_below(root: Path) -> Iterator[str]:
    if not root.is_dir():
        return
    for path in sorted(root.rglob("*")):
        in_a_model = any((parent / "config.json").is_file() for parent in path.parents if parent.is_relative_to(root))
        if not in_a_model and ((path / "config.json").is_file() or is_weight_file(path)):
            yield path.relative_to(root).as_posix()


def is_weight_file(path: Path) -> bool:
    """Whether a file can hold weights: nothing that is no regular file, which might not end."""
    return path.suffix in WEIGHT_FILES and os.path.isfile(path)


@torch.inference_mode(False)  # so that weights are normal tensors, which gradients need
def load_classifier(name: str, prompts: tuple[str, ...] = ()) -> GuidanceClassifier:
    """Loads what `classifier_names` lists; prompts are the classes of a zero-shot model. Raises ValueError, naming
    the file and what is wrong with it."""
    if name not in classifier_names():
        folders = printable(", ".join(folder_paths.get_folder_paths(FOLDER)))
        raise ValueError(f"classifier_name = {name!r} is not in ComfyUI's model folder '{FOLDER}': {folders}.")
    path = BUNDLED[name] if name in BUNDLED else _path(name)
    try:
        check_name(path)
        module, labels, notes = _load(path, prompts)
        return guidance_classifier(name, module, labels, notes)
    except Exception as error:  # damaged and hostile files let the libraries that read them raise anything
        words = f"classifier_name = '{name}' cannot be loaded from {path}: {reason_of(error)}"
        raise ValueError(printable(words)) from printable_cause(error)


def reason_of(error: Exception) -> str:
    """Why a file cannot be loaded: our words, or what a library says of one that it was not made for."""
    return str(error) if isinstance(error, ValueError) and str(error) else f"it does not fit ({words_of(error)})."


def save_classifier(classifier: GuidanceClassifier, prefix: str) -> str:
    """Saves below ComfyUI's output folder; returns the name under which the loader offers it.

    prefix: the name before its number, with folders of it and %year% and the like as in ComfyUI's other nodes.
    """
    root = Path(folder_paths.get_output_directory()) / FOLDER
    prefix = prefix.strip()
    if not _is_a_path(prefix):
        raise ValueError(
            f"filename_prefix = {prefix!r}: write a name below ComfyUI's output folder, in printable characters, at most "
            f"{LONGEST_NAME} bytes of them between slashes."
        )
    outside = not (root / prefix).resolve().is_relative_to(root.resolve())
    in_another = any((parent / "config.json").is_file() for parent in (root / prefix).parents)
    if outside or in_another or not prefix or prefix.endswith(("/", "\\", ".")):
        raise ValueError(
            f"filename_prefix = {prefix!r}: write a name below ComfyUI's output folder, and not in another "
            "classifier's, such as calibrated or animals/calibrated."
        )
    folder, name, counter, _, _ = folder_paths.get_save_image_path(prefix, str(root))
    target = Path(folder) / f"{name}_{counter:05}_{classifier.patcher.model.suffix}"
    with TemporaryDirectory(dir=root, prefix=".") as unfinished:  # so that no half-written classifier is left
        written = Path(unfinished) / target.name
        classifier.patcher.model.save(written, classifier.labels, classifier.notes)
        written.replace(target)
    return target.relative_to(root).as_posix()


def _is_a_path(name: str) -> bool:
    """Whether it is printable, and no part of it too long with a number behind it."""
    parts = name.encode(errors="replace").split(b"/")
    return "\0" not in name and name.isprintable() and all(len(part) <= LONGEST_NAME for part in parts)


def _load(path: Path, prompts: tuple[str, ...]) -> tuple[torch.nn.Module, list[str], dict[str, Any]]:
    if path.is_dir():
        from . import hugging_face

        return hugging_face.load(path, prompts)
    if prompts:
        raise ValueError("prompts are for zero-shot models; this one has classes of its own. Leave prompts empty.")
    weights, metadata = read_weights(path)
    if is_adm(weights):
        from . import adm_file

        return adm_file.load(weights, metadata, path.stem)
    from . import torchvision

    return torchvision.load(weights, metadata, path.stem)


def _path(name: str) -> Path:
    roots = map(Path, folder_paths.get_folder_paths(FOLDER))
    return next(root / name for root in roots if (root / name / "config.json").is_file() or is_weight_file(root / name))
