"""What a Hugging Face folder says of itself, read and bounded before its library builds anything of it."""

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import torch

from .claims import (
    LARGEST_TEXT,
    TooMuch,
    check_counts,
    check_numbers,
    check_regular,
    check_size,
    entries_of,
    read_json,
    safetensors_shapes,
    words_of,
)
from .weights import NOTES

LOCAL = {"local_files_only": True, "trust_remote_code": False}
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARDS_OF_PROCESSES = "shard-*-model-*.safetensors"  # beside one, the library reads all safetensors, index or not
CONFIGURATIONS = ("preprocessor_config.json", "processor_config.json")
# Families for which the library lists no image processor: whose one their published folders have.
PROCESSOR_OF = {"hgnet_v2": "rt_detr", "dinov2_with_registers": "bit"}
PROCESSOR_TYPES = ("image_processor_type", "feature_extractor_type")  # the latter in older folders
TOKENIZER_ARGUMENTS = ("tokenizer_config.json", "special_tokens_map.json")
# In them, where a tokenizer was read from before.
MENTIONED = ("name_or_path", "_name_or_path", "special_tokens_map_file")
OF_A_NETWORK = re.compile(r"[\\/]{2}[^\\/\s]")
TOKENIZER = "tokenizer.json"
# Those of any tokenizer.json, and of published AltCLIP and SigLIP 2.
TOKENIZERS = {"PreTrainedTokenizer", "TokenizersBackend", "XLMRobertaTokenizer", "GemmaTokenizer"}
ADDED = {"Replace": "content", "Prepend": "prepend"}  # by parts of a normalizer
MOST_MERGES = 10**6  # lists in tokenizer.json; Gemma's has 580,000 pairs
MOST_LONGER = 1000  # times, that a tokenizer may make a prompt; published ones replace a space by a space
TEMPLATES = "additional_chat_templates"  # a folder that tokenizers read
# Weights, of which safetensors are bounded by their headers, and others' are not read. Any other file can be a tokenizer's.
WEIGHT_SUFFIXES = (
    ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".ot", ".onnx", ".onnx_data", ".gguf", ".tflite",
    ".npz",
)  # fmt: skip
# Entries by which config.json has the library read or build something else than what is checked here.
DETOURS = {
    "configuration_files": "has another file read in its place",
    "transformers_weights": "has other weights read",
    "fusion_config": "has layers of the library replaced",
}
IMPLEMENTATION = re.compile("_?(attn|experts)_implementation(_internal)?")
# Those of PyTorch and of packages; anything else is the name of a repository with code.
IMPLEMENTATIONS = (None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
FEW_LAYERS = (
    1000  # may be asked for; more where there are as many weights. Some families list all before they build one
)
LARGEST_SIDE = 4096  # pixels
SIDES = {"levit": 512}  # of families that list all pairs of positions
LEVIT_SIDE = 32  # patches; published ones have 14
# Families that transformers lists beside image classifiers.
UNSUPPORTED = {
    "blip-2": "each text is held against another of its features of a picture",
    "dinat": "their attention is the package natten's, not PyTorch's",
    "imagegpt": "it reads the numbers of colours, through which no gradient comes",
    "shieldgemma2": "it is a language model that answers a prompt",
    "timm_wrapper": "timm builds them, of whatever config.json names",
    "videoprism": "it reads videos",
}
Shapes = dict[str, torch.Size]


def check_folder(folder: Path) -> Shapes:
    """The shapes of its weights. Raises ValueError for a folder that is not complete, or that claims too much."""
    _check_kind(folder)
    for path in sorted(folder.iterdir()):
        if not path.is_dir():
            check_regular(path)
            if path.suffix not in WEIGHT_SUFFIXES and path.stat().st_size > LARGEST_TEXT:
                raise TooMuch(
                    f"{path.name} has {path.stat().st_size:,} bytes; at most {LARGEST_TEXT:,} are read. Move it elsewhere, "
                    "unless the model needs it."
                )
    for name in CONFIGURATIONS:
        if (folder / name).exists():
            content = read_json(folder / name)
            check_numbers(content, name)
            _check_processors(content, name)
    for name in TOKENIZER_ARGUMENTS:
        if (folder / name).exists():
            _check_arguments(read_json(folder / name), name)
    files = _weight_files(folder)
    check_size(*files)
    return {key: shape for file in files for key, shape in safetensors_shapes(file).items()}


def _check_kind(folder: Path) -> None:
    """Raises ValueError for a folder that holds something else than a whole model that transformers has saved."""
    content = read_json(folder / "config.json")
    if "pretrained_cfg" in content or content.get("model_type") == "timm_wrapper":
        raise ValueError(
            "config.json is that of a timm model, which is not read. Use a folder of the same network that transformers has "
            "saved, such as google/vit-base-patch16-224. A ResNet of timm has torchvision's weights: save its state_dict() as "
            "a file of torchvision's name, such as resnet50.safetensors."
        )
    if not any(folder.glob("*.safetensors")) and any(folder.glob("*.bin")):
        raise ValueError(
            f"the weights in {folder} are a pickle (.bin), which is not read: load the model in transformers and save it "
            "with save_pretrained, which writes safetensors."
        )
    if not any((folder / name).exists() for name in CONFIGURATIONS):
        raise ValueError(f"the folder {folder} has no {' and no '.join(CONFIGURATIONS)}.")
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"the folder {folder} has no *.safetensors.")
    if (folder / "adapter_config.json").exists():
        raise ValueError("it is an adapter of another model: merge them and save the whole model.")
    if (folder / TEMPLATES).exists():
        raise ValueError(
            f"it has {TEMPLATES}, of a language model that answers: remove them, no classifier needs them."
        )


def _weight_files(folder: Path) -> list[Path]:
    """The files that the library reads: one, or those of an index. Raises ValueError for an index of other folders."""
    for part in folder.glob(SHARDS_OF_PROCESSES):
        raise ValueError(
            f"{part.name} is what one process of a training has saved: save the whole model with save_pretrained."
        )
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if not (folder / INDEX).exists():
        raise ValueError(f"the folder has neither {WEIGHTS} nor {INDEX}.")
    files, there = read_json(folder / INDEX).get("weight_map"), {path.name for path in folder.iterdir()}
    if not isinstance(files, dict) or not all(name in there for name in files.values()):
        raise ValueError(f"{INDEX} names files that are not in the folder.")
    return [folder / name for name in sorted({*files.values()})]


def _check_processors(content: dict[str, Any], name: str) -> None:
    """Raises ValueError where a file of this name asks for an image processor that no image classifier has.

    Others look up files of a hub while they are made, or cut a picture into as many parts as they are told.
    """
    known = _image_processors()
    for key, value in entries_of(content):
        if key in PROCESSOR_TYPES and value is not None:
            asked = value.replace("FeatureExtractor", "ImageProcessor") if isinstance(value, str) else ""
            if asked.removesuffix("Fast") not in known:
                raise ValueError(
                    f"{name} says {key} = {value!r:.80}, which is no image processor of an image classifier: use the folder "
                    "as it was published or saved."
                )


def _check_arguments(content: dict[str, Any], name: str) -> None:
    """Raises ValueError where what a tokenizer is made of names a file of this computer, which it would read to its end, or one
    of a network: Windows asks another computer for it as soon as it is looked for."""
    for key, value in entries_of(content):
        named = isinstance(value, str) and key not in MENTIONED
        if named and OF_A_NETWORK.match(value):
            raise ValueError(f"{name} says {key} = {value!r:.80}, a file of another computer: remove the entry.")
        if named and os.path.exists(value) and not os.path.isdir(value):  # a token can be "/" or "."
            raise ValueError(
                f"{name} says {key} = {value!r:.80}, a file of this computer that is not in the folder: remove the entry."
            )


def check_tokenizer(folder: Path) -> None:
    """Raises ValueError for a tokenizer that no zero-shot model has, such as one that makes as many words as its arguments say,
    or whose file has each prompt grow."""
    known = _tokenizers()
    for name in ("config.json", TOKENIZER_ARGUMENTS[0]):
        content = read_json(folder / name) if (folder / name).exists() else {}
        asked = content.get("tokenizer_class") or "PreTrainedTokenizer"
        if not isinstance(asked, str) or asked.removesuffix("Fast") not in known:
            raise ValueError(
                f"{name} says tokenizer_class = {asked!r:.80}, which is no tokenizer of a zero-shot model: use the folder as it "
                "was published or saved."
            )
        if name != "config.json":
            # Of what a tokenizer was trained with, this may be any number.
            check_numbers({key: value for key, value in content.items() if key != "model_max_length"}, name)
    if (folder / TOKENIZER).exists():
        _check_normalizer(folder / TOKENIZER)


def _check_normalizer(path: Path) -> None:
    """Raises ValueError where each of many replacements makes a text longer."""
    text = path.read_bytes()
    if text.count(b"[") + text.count(b"{") > MOST_MERGES:
        raise TooMuch(f"{path.name} has far more lists than a tokenizer.")
    try:
        normalizer = json.loads(text).get("normalizer")
    except (ValueError, RecursionError, AttributeError) as error:
        raise ValueError(f"{path.name} is damaged: it holds no JSON object.") from error
    parts = [entry for _, entry in entries_of(normalizer) if isinstance(entry, dict)]
    # Between all letters, where it replaces nothing.
    longer = math.prod(1 + len(str(part.get(ADDED.get(str(part.get("type")), ""), ""))) for part in parts)
    if longer > MOST_LONGER:
        raise TooMuch(f"the replacements in {path.name} may make a prompt {longer:.3g} times as long.")


def _tokenizers() -> set[str]:
    """The names of those that the library lists for zero-shot models, and of others in published folders of these, without
    the "Fast" of transformers 4."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    listed = [TOKENIZER_MAPPING_NAMES.get(family) for family in MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES]
    # A slow and a fast one in transformers 4; None for what is not installed.
    names = [name for entry in listed for name in ((entry,) if isinstance(entry, str) else entry or ()) if name]
    return {name.removesuffix("Fast") for name in names} | TOKENIZERS


def numbers_of(held: Shapes) -> int:
    """How many numbers weights of these shapes are."""
    return sum(map(torch.Size.numel, held.values()))


def _image_processors() -> set[str]:
    """The names of those that the library lists for families that are read, without the "Fast" of transformers 4."""
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    families = {PROCESSOR_OF.get(family, family) for family in _families()}
    listed = [IMAGE_PROCESSOR_MAPPING_NAMES[family] for family in families & IMAGE_PROCESSOR_MAPPING_NAMES.keys()]
    # By backend, and a slow and a fast one in transformers 4; None for what is not installed.
    names = [name for entry in listed for name in (entry.values() if isinstance(entry, dict) else entry) if name]
    return {name.removesuffix("Fast") for name in names}


def _families() -> set[str]:
    """Those of which the library has a classifier of pictures, with classes of its own or with prompts, that can guide."""
    from transformers.models.auto import modeling_auto

    classifiers = modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    zero_shot = modeling_auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES
    return {*classifiers, *zero_shot} - UNSUPPORTED.keys()


def read_config(folder: Path, held: Shapes) -> Any:
    """The library's configuration of an image classifier. held: the shapes of its weights.

    Raises ValueError for one that it does not know, that is none of a classifier, or that asks for code.
    """
    from transformers import AutoConfig

    content = read_json(folder / "config.json")
    _check_family(content)
    _check_parts(content)
    _check_processors(content, "config.json")
    built = {key: value for key, value in content.items() if key not in (NOTES, "id2label")}
    layers = dict.fromkeys(("layer", "depth", "block"), max(FEW_LAYERS, len(held)))
    check_numbers(built, "config.json", {**layers, "image_size": SIDES.get(content["model_type"], LARGEST_SIDE)})
    check_counts(built, "config.json", layers)
    _check_classes(content, numbers_of(held))
    try:
        config = AutoConfig.from_pretrained(folder, **LOCAL)
    except Exception as error:
        raise ValueError(f"config.json describes no {content['model_type']}: {words_of(error)}") from error
    _check_pairs(config)
    config._attn_implementation = None  # the library's choice for this network, of PyTorch's own
    config.return_dict = True
    return config


def _check_family(content: dict[str, Any]) -> None:
    import transformers

    family, architectures = content.get("model_type"), content.get("architectures") or []
    if not isinstance(family, str) or family not in transformers.CONFIG_MAPPING:
        raise ValueError(
            f"config.json says model_type = {family!r:.80}, which transformers {transformers.__version__} does not know."
        )
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise ValueError("config.json is damaged: its architectures are not a list of names.")
    if family not in _families():
        why = UNSUPPORTED.get(family, "transformers has no image classifier of this kind")
        raise ValueError(
            f"'{family}' models cannot guide: {why}. Use another one, such as vit, convnext, clip or siglip."
        )


def _check_parts(content: dict[str, Any]) -> None:
    """Raises ValueError where it or one of its parts asks for quantized weights, other files, or code of a repository."""
    for key, value in entries_of(content):
        _check_entry(key, value)


def _check_entry(key: str, value: Any) -> None:
    if key == "quantization_config" and value is not None:
        raise ValueError(
            "config.json has a quantization_config: quantized weights have no gradients. Use the model in 16 or 32 bits."
        )
    if key in DETOURS and value is not None:
        raise ValueError(f"config.json has the entry {key}, which {DETOURS[key]}, and is not followed. Remove it.")
    chosen = value.values() if isinstance(value, dict) else [value]
    if IMPLEMENTATION.fullmatch(key) and not all(name in IMPLEMENTATIONS for name in chosen):
        raise ValueError(
            f"config.json says {key} = {value!r:.80}, which is code to be fetched and is not run. Remove the entry, or use "
            "eager or sdpa."
        )


def _check_pairs(config: Any) -> None:
    """Raises ValueError for a LeViT of so many patches that it would take minutes to list their pairs."""
    if config.model_type == "levit":
        picture, patch = config.image_size, config.patch_size
        numbers = all(isinstance(side, (int, float)) for side in (picture, patch))  # others it refuses itself
        if numbers and abs(picture) >= (LEVIT_SIDE + 1) * abs(patch):
            raise TooMuch(
                f"config.json says image_size = {picture} and patch_size = {patch}; at most {LEVIT_SIDE} patches a side can be "
                "built."
            )


def _check_classes(content: dict[str, Any], numbers: int) -> None:
    """numbers: in its weights, of which each class needs one."""
    for key in ("num_labels", "id2label"):
        value = content.get(key) or 0
        count = len(value) if isinstance(value, (dict, list)) else value
        if isinstance(count, (int, float)) and count > numbers:
            raise TooMuch(f"config.json has {key} of {count:,} classes, and the weights are {numbers:,} numbers.")
