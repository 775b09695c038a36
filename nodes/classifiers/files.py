"""Finds classifiers in ComfyUI's model folder `classifiers`, and loads each by its format.

A folder with a config.json is a Hugging Face model; a file of weights is a noise-aware classifier or a torchvision network.
Nothing in a file is executed: weights are read as safetensors or with `weights_only`.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import folder_paths
import torch
from comfy.model_management import InterruptProcessingException

from ..common.printable import printable, printable_cause
from .adm_file import is_adm
from .claims import check_name, words_of
from .guidance_classifier import GuidanceClassifier, guidance_classifier
from .listing import UNFINISHED, names_below, path_below
from .weights import read_weights

FOLDER = "classifiers"
DEMO = "entropy-guidance-demo"
DEMO_WEIGHTS = Path(__file__).parents[2] / "demo" / "weights"
BUNDLED = {
    DEMO: DEMO_WEIGHTS / "classifier",
    "entropy-guidance-demo-classes": DEMO_WEIGHTS / "classes" / "classifier",
    "entropy-guidance-demo-classes-noise-aware": DEMO_WEIGHTS / "classes" / "32x32_classifier.safetensors",
}
LONGEST_NAME = 200  # bytes

folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.get_output_directory()) / FOLDER))  # what is saved


def classifier_names() -> list[str]:
    """What the loader offers: paths below the model folders, with forward slashes."""
    found = {name for root in folder_paths.get_folder_paths(FOLDER) for name in names_below(root)}
    return [*BUNDLED, *sorted(found - BUNDLED.keys())]


@torch.inference_mode(False)  # so that weights are normal tensors, which gradients need
def load_classifier(name: str, prompts: tuple[str, ...] = ()) -> GuidanceClassifier:
    """Loads what `classifier_names` lists; prompts are the classes of a zero-shot model. Raises ValueError, naming
    the file and what is wrong with it."""
    path = _path(name)
    with naming(f"classifier_name = '{name}'", path):
        check_name(path)
        module, labels, notes = _load(path, prompts)
        return guidance_classifier(name, module, labels, notes)


def fingerprint(name: str | None) -> list[tuple[str, int, int]]:
    """Of what a classifier is made of: a file, or the files of a folder. name: None for a linked one, which is not known yet."""
    if name is None:
        return []
    path = _path(name)
    return fingerprint_of([path] if path.is_file() else path.iterdir())


def fingerprint_of(files: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Names, times in ns and sizes of files, which change with them."""
    found = ((file.name, file.stat()) for file in sorted(files) if file.exists())
    return [(name, status.st_mtime_ns, status.st_size) for name, status in found]


@contextmanager
def naming(wanted: str, path: Path) -> Iterator[None]:
    """Within, whatever goes wrong is a ValueError that names the input, as an artist gave it, and the file."""
    try:
        yield
    except InterruptProcessingException:
        raise
    except Exception as error:  # damaged and hostile files let the libraries that read them raise anything
        words = f"{wanted} cannot be loaded from {path}: {_reason_of(error)}"
        raise ValueError(printable(words)) from printable_cause(error)


def _reason_of(error: Exception) -> str:
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
    folders = [folder for folder in (root / prefix).parents if root in folder.parents]
    in_another = any((folder / "config.json").is_file() for folder in folders)
    if outside or in_another or not prefix or prefix.endswith(("/", "\\", ".")):
        raise ValueError(
            f"filename_prefix = {prefix!r}: write a name below ComfyUI's output folder, and not in another "
            "classifier's, such as calibrated or animals/calibrated."
        )
    folder, name, counter, _, _ = folder_paths.get_save_image_path(prefix, str(root))
    number = max(counter, _next_number(Path(folder).relative_to(root), name))
    target = Path(folder) / f"{name}_{number:05}_{classifier.patcher.model.suffix}"
    with TemporaryDirectory(dir=root, prefix=UNFINISHED) as unfinished:  # so that no half-written classifier is left
        written = Path(unfinished) / target.name
        classifier.patcher.model.save(written, classifier.labels, classifier.notes)
        written.replace(target)
    return target.relative_to(root).as_posix()


def _next_number(folder: Path, name: str) -> int:
    """One more than the largest behind a name in a folder below any of the model folders: what has been moved from one to
    another would hide what is saved under the same name."""
    numbered = re.compile(re.escape(os.path.normcase(name)) + r"_(\d{1,9})_")
    there = [path for root in folder_paths.get_folder_paths(FOLDER) if (path := Path(root, folder)).is_dir()]
    found = (numbered.match(os.path.normcase(entry)) for path in there for entry in os.listdir(path))
    return max((int(match[1]) for match in found if match), default=0) + 1


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
    """Where a classifier is. Raises ValueError for a name that `classifier_names` does not list, or not any more."""
    roots = folder_paths.get_folder_paths(FOLDER)
    if isinstance(name, str):
        for path in (BUNDLED.get(name), *(path_below(root, name) for root in roots)):
            if path is not None:
                return path
    folders = printable(", ".join(roots))
    raise ValueError(f"classifier_name = {name!r} is not in ComfyUI's model folder '{FOLDER}': {folders}.")
