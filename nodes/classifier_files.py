"""Finds classifiers in ComfyUI's model folder `classifiers`, and loads each by its format.

A folder with a config.json is a Hugging Face model; a .safetensors, .pth or .pt file is a noise-aware classifier or a
torchvision network. Nothing in a file is executed: weights are read as safetensors or with `weights_only`.
"""

from pathlib import Path

import folder_paths
import torch
from safetensors import SafetensorError

from .adm_classifier import is_adm
from .classifier_weights import read_weights
from .guidance_classifier import GuidanceClassifier, guidance_classifier

FOLDER = "classifiers"
DEMO = "entropy-guidance-demo"
DEMO_FOLDER = Path(__file__).parent.parent / "demo" / "weights" / "classifier"
WEIGHT_FILES = (".safetensors", ".pth", ".pt")
# What damaged or incomplete files raise in the libraries that read them.
LOADING_ERRORS = (
    OSError, ValueError, KeyError, RuntimeError, EOFError, ImportError, AttributeError, TypeError, SafetensorError,
)  # fmt: skip

folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))


def classifier_names() -> list[str]:
    """What the loader offers: paths below the model folders, with forward slashes."""
    found = {name for root in map(Path, folder_paths.get_folder_paths(FOLDER)) for name in _names_below(root)}
    return [DEMO, *sorted(found - {DEMO})]


def _names_below(root: Path):
    if not root.is_dir():
        return
    for path in sorted(root.rglob("*")):
        in_a_model = any((parent / "config.json").is_file() for parent in path.parents if parent.is_relative_to(root))
        if not in_a_model and ((path / "config.json").is_file() or path.suffix in WEIGHT_FILES):
            yield path.relative_to(root).as_posix()


@torch.inference_mode(False)  # so that weights are normal tensors, which gradients need
def load_classifier(name: str, prompts: tuple[str, ...] = ()) -> GuidanceClassifier:
    """Loads what `classifier_names` lists; prompts are the classes of a zero-shot model. Raises ValueError, naming
    the file and what is wrong with it."""
    if name not in classifier_names():
        raise ValueError(
            f"classifier_name = '{name}' is not in ComfyUI's model folder '{FOLDER}': "
            f"{', '.join(folder_paths.get_folder_paths(FOLDER))}."
        )
    path = DEMO_FOLDER if name == DEMO else _path(name)
    try:
        module, labels = _load(path, prompts)
    except LOADING_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"classifier_name = '{name}' cannot be loaded from {path}: {reason}") from error
    return guidance_classifier(name, module, labels)


def _load(path: Path, prompts: tuple[str, ...]) -> tuple[torch.nn.Module, list[str]]:
    if path.is_dir():
        from .hugging_face_classifier import load

        return load(path, prompts)
    if prompts:
        raise ValueError("prompts are for zero-shot models; this one has classes of its own. Leave prompts empty.")
    weights, metadata = read_weights(path)
    if is_adm(weights):
        from .adm_classifier import load
    else:
        from .torchvision_classifier import load
    return load(weights, metadata, path.stem)


def _path(name: str) -> Path:
    return next(path for root in folder_paths.get_folder_paths(FOLDER) if (path := Path(root) / name).exists())
