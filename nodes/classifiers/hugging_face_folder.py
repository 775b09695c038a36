"""What a Hugging Face folder says of itself, read and bounded before its library builds anything of it."""

import re
from pathlib import Path
from typing import Any

import torch

from .claims import (
    LARGEST_TEXT,
    TooMuch,
    check_numbers,
    check_regular,
    check_size,
    entries_of,
    read_json,
    safetensors_shapes,
    words_of,
)

LOCAL = {"local_files_only": True, "trust_remote_code": False}
NOTES = "entropy_guidance"  # where config.json says how a saved classifier was calibrated
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIGURATIONS = ("preprocessor_config.json", "processor_config.json")
TEXTS = (".json", ".txt", ".model", ".jinja")  # of configurations and tokenizers
IMPLEMENTATION = re.compile("_?(attn|experts)_implementation(_internal)?")
# Those of PyTorch and of packages; anything else is the name of a repository with code.
IMPLEMENTATIONS = (None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
FEW_LAYERS = (
    1000  # may be asked for; more where there are as many weights. Some families list all before they build one
)
LARGEST_SIDE = 4096  # pixels
SIDES = {"levit": 512}  # of families that list all pairs of positions
# Families that transformers lists beside image classifiers.
UNSUPPORTED = {
    "imagegpt": "it reads the numbers of colours, through which no gradient comes",
    "shieldgemma2": "it is a language model that answers a prompt",
    "videoprism": "it reads videos",
}
Shapes = dict[str, torch.Size]


def check_folder(folder: Path) -> Shapes:
    """The shapes of its weights. Raises ValueError for a folder that is not complete, or that claims too much."""
    for needed in ("preprocessor_config.json", "*.safetensors"):
        if not any(folder.glob(needed)):
            raise ValueError(f"the folder {folder} has no {needed}.")
    for path in sorted(folder.iterdir()):
        if not path.is_dir():
            check_regular(path)
            if path.suffix in TEXTS and path.stat().st_size > LARGEST_TEXT:
                raise TooMuch(f"{path.name} has {path.stat().st_size:,} bytes; at most {LARGEST_TEXT:,} are read.")
    if (folder / "adapter_config.json").exists():
        raise ValueError("it is an adapter of another model: merge them and save the whole model.")
    for name in CONFIGURATIONS:
        if (folder / name).exists():
            check_numbers(read_json(folder / name), name)
    files = _weight_files(folder)
    check_size(*files)
    return {key: shape for file in files for key, shape in safetensors_shapes(file).items()}


def _weight_files(folder: Path) -> list[Path]:
    """The files that the library reads: one, or those of an index. Raises ValueError for an index of other folders."""
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if not (folder / INDEX).exists():
        raise ValueError(f"the folder has neither {WEIGHTS} nor {INDEX}.")
    files = read_json(folder / INDEX).get("weight_map")
    if not isinstance(files, dict) or not all(
        name in {path.name for path in folder.iterdir()} for name in files.values()
    ):
        raise ValueError(f"{INDEX} names files that are not in the folder.")
    return [folder / name for name in sorted({*files.values()})]


def read_config(folder: Path, held: Shapes) -> Any:
    """The library's configuration of an image classifier. held: the shapes of its weights.

    Raises ValueError for one that it does not know, that is none of a classifier, or that asks for code.
    """
    from transformers import AutoConfig

    content = read_json(folder / "config.json")
    _check_family(content)
    _check_parts(content)
    built = {key: value for key, value in content.items() if key not in (NOTES, "id2label")}
    layers = dict.fromkeys(("layer", "depth", "block"), max(FEW_LAYERS, len(held)))
    check_numbers(built, "config.json", {**layers, "image_size": SIDES.get(content["model_type"], LARGEST_SIDE)})
    _check_classes(content, sum(map(torch.Size.numel, held.values())))
    try:
        config = AutoConfig.from_pretrained(folder, **LOCAL)
    except Exception as error:
        raise ValueError(f"config.json describes no {content['model_type']}: {words_of(error)}") from error
    config._attn_implementation = None  # the library's choice for this network, of PyTorch's own
    return config


def _check_family(content: dict[str, Any]) -> None:
    import transformers
    from transformers.models.auto import modeling_auto

    family, architectures = content.get("model_type"), content.get("architectures") or []
    if not isinstance(family, str) or family not in transformers.CONFIG_MAPPING:
        raise ValueError(
            f"config.json says model_type = {family!r:.80}, which transformers {transformers.__version__} does not know."
        )
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise ValueError("config.json is damaged: its architectures are not a list of names.")
    classifiers = modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    zero_shot = modeling_auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES
    if family in UNSUPPORTED or family not in {*classifiers, *zero_shot}:
        why = UNSUPPORTED.get(family, "transformers has no image classifier of this kind")
        raise ValueError(
            f"'{family}' models cannot guide: {why}. Use another one, such as vit, convnext, clip or siglip."
        )


def _check_parts(content: dict[str, Any]) -> None:
    """Raises ValueError where it or one of its parts asks for quantized weights, or for code of a repository."""
    for key, value in entries_of(content):
        _check_entry(key, value)


def _check_entry(key: str, value: Any) -> None:
    if key == "quantization_config" and value is not None:
        raise ValueError(
            "config.json has a quantization_config: quantized weights have no gradients. Use the model in 16 or 32 bits."
        )
    chosen = value.values() if isinstance(value, dict) else [value]
    if IMPLEMENTATION.fullmatch(key) and not all(name in IMPLEMENTATIONS for name in chosen):
        raise ValueError(
            f"config.json says {key} = {value!r:.80}, which is code to be fetched and is not run. Remove the entry, or use "
            "eager or sdpa."
        )


def _check_classes(content: dict[str, Any], numbers: int) -> None:
    """numbers: in its weights, of which each class needs one."""
    for key in ("num_labels", "id2label"):
        value = content.get(key) or 0
        count = len(value) if isinstance(value, (dict, list)) else value
        if isinstance(count, (int, float)) and count > numbers:
            raise TooMuch(f"config.json has {key} of {count:,} classes, and the weights are {numbers:,} numbers.")
