"""Files of class-conditional models in ComfyUI's model folder `diffusion_models`. Nothing in a file is executed."""

from collections.abc import Callable
from pathlib import Path

import comfy.model_patcher
import folder_paths
from torch import Tensor

from ..classifiers.claims import check_name
from ..classifiers.files import DEMO_WEIGHTS, fingerprint_of, naming
from ..classifiers.weights import WEIGHT_FILES, class_names, read_weights
from ..common.printable import printable
from .class_model import ClassModelSettings, class_model

FOLDER = "diffusion_models"
DEMO = "entropy-guidance-demo-classes"
DEMO_FILE = DEMO_WEIGHTS / "classes" / "diffusion.safetensors"

# From weights, metadata and the file's name without its ending; raises ValueError for what is not of its kind.
Reader = Callable[[dict[str, Tensor], dict[str, str], str], tuple[ClassModelSettings, dict[str, Tensor]]]


def model_names() -> list[str]:
    """The files that the loaders offer."""
    return [name for name in folder_paths.get_filename_list(FOLDER) if _file(name)]


def load_model(name: str, read: Reader, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The MODEL of a file, by the reader of its kind. Raises ValueError, naming the file and what is wrong with it."""
    path = _path(name)
    with naming(f"model_name = '{name}'", path):
        check_name(path)
        settings, weights = read(*read_weights(path), path.stem)
    return class_model(settings, weights, (load_model, (name, read)), disable_dynamic)


def fingerprint(name: str | None) -> list[tuple[str, int, int]]:
    """Of a file. name: None for a linked one, which is not known yet."""
    return [] if name is None else fingerprint_of([_path(name)])


def names_of_rows(metadata: dict[str, str], rows: int, null: bool) -> tuple[str, ...]:
    """The classes of an embedding of so many rows; where the last is the null class's, it has no name. null: whether it is
    where no labels say so. Raises ValueError for labels of another number."""
    names = tuple(class_names(metadata, rows - null)) if rows else ()
    if len(names) not in (rows, rows - 1):
        raise ValueError(f"its metadata names {len(names)} classes, and its weights have {rows}.")
    return names


def _file(name: str) -> str | None:
    """The path of one of ComfyUI's names; None for what is no file of weights, or no regular file."""
    return folder_paths.get_full_path(FOLDER, name) if name.lower().endswith(WEIGHT_FILES) else None


def _path(name: str) -> Path:
    if name == DEMO:
        return DEMO_FILE
    path = _file(name) if name in folder_paths.get_filename_list(FOLDER) else None
    if path is None:
        folders = printable(", ".join(folder_paths.get_folder_paths(FOLDER)))
        raise ValueError(f"model_name = {name!r} is not in ComfyUI's model folder '{FOLDER}': {folders}.")
    return Path(path)
