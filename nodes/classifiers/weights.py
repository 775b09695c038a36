"""Reads files of weights without executing anything in them."""

import json
import os
import re
from argparse import Namespace
from contextlib import AbstractContextManager, nullcontext
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import IO, Any, cast

import torch

from ..common.want_of_memory import is_want_of_memory
from .claims import (
    ZIP,
    Description,
    NotRead,
    TooMuch,
    check_archive,
    check_held,
    check_regular,
    check_size,
    safetensors_shapes,
)
from .class_labels import distinct_labels
from .pickles import check_pickle
from .state_dicts import state_dict_in, unwrapped

SAFETENSORS = (".safetensors", ".sft")
WANT_OF_MEMORY = "there is not enough free memory to load it: close other programs, or use a smaller model."
WEIGHT_FILES = (*SAFETENSORS, ".pth", ".pt", ".ckpt")
NOTES = "entropy_guidance"  # where a saved classifier's metadata, or config.json, says how it was calibrated


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The state dict and the metadata (safetensors only) of a file. Raises ValueError for files of anything else.

    Of what a training has saved, {"ema": ..., "args": ...}, the averaged weights, under the names of the network itself.
    """
    weights, metadata = _safetensors(path) if path.suffix.lower() in SAFETENSORS else (_pickled(path), {})
    return unwrapped(weights), metadata


def _safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    safetensors_shapes(path)
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}).") from error


def _pickled(path: Path) -> dict[str, torch.Tensor]:
    check_regular(path)
    check_size(path)
    try:
        with open(path, "rb") as file, _namespaces_are_read():
            content = torch.load(_readable(file), map_location="cpu", weights_only=True)
    except (TooMuch, NotRead):
        raise
    except Exception as error:  # damaged files let PyTorch raise anything
        damaged = f"{path} is damaged, or holds more than weights, which is not run."
        raise ValueError(WANT_OF_MEMORY if is_want_of_memory(error) else damaged) from error
    weights = state_dict_in(content, str(path))
    check_held(weights, path.stat().st_size)
    return weights


def _readable(file: BufferedReader) -> str | IO[bytes]:
    """What PyTorch may read of a file without being asked for more than it holds."""
    size, is_archive = os.fstat(file.fileno()).st_size, file.read(len(ZIP)) == ZIP
    if is_archive:
        for pickle in check_archive(file):
            check_pickle(BytesIO(pickle), size)
        return file.name
    file.seek(0)
    # Which has what torch.load asks of one. The numbers come behind five pickles: what wrote them, weights, and their records.
    check_pickle(cast(IO[bytes], Description(file)), size, count=5)
    file.seek(0)
    return cast(IO[bytes], Description(file))


def _namespaces_are_read() -> AbstractContextManager[Any]:
    """Within, files may hold the arguments of a training: values by name, without code. PyTorch 2.4 cannot be told so."""
    return getattr(torch.serialization, "safe_globals", nullcontext)([Namespace])


def check_weights(expected: dict[str, torch.Tensor], weights: dict[str, torch.Tensor], whose: str) -> None:
    """Raises ValueError where weights are not those of a network, by name and shape. whose: "the classifier's"."""
    missing, unknown = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or unknown:
        raise ValueError(
            f"{len(missing)} weights are missing and {len(unknown)} unknown, such as {[*missing, *unknown][0]}: use "
            f"{whose} file as it was published or saved."
        )
    for key, weight in expected.items():
        if weights[key].shape != weight.shape:
            raise ValueError(
                f"the weight '{key}' is {tuple(weights[key].shape)} rather than {tuple(weight.shape)}: use {whose} file "
                "as it was published or saved."
            )


def weight_shape(weights: dict[str, torch.Tensor], key: str, dimensions: int) -> torch.Size:
    """The shape of a weight. Raises ValueError where it is missing or has another number of dimensions."""
    if key not in weights or weights[key].ndim != dimensions:
        raise ValueError(f"the weight '{key}' of {dimensions} dimensions is missing: the file is not complete.")
    return weights[key].shape


def count_in_metadata(metadata: dict[str, str], key: str, default: str) -> int:
    """A count that metadata gives, or the default. Raises ValueError for what is none from 1 to 999999."""
    text = metadata.get(key, default)
    if not re.fullmatch("[0-9]{1,6}", text) or not int(text):
        raise ValueError(f"{key} = '{text}' is not a whole number from 1 to 999999.")
    return int(text)


def class_names(metadata: dict[str, str], classes: int) -> list[str]:
    """The metadata's 'labels' (a JSON list), for 1000 classes ImageNet's, and numbers otherwise. Raises ValueError."""
    if "labels" in metadata:
        return distinct_labels(_listed(metadata["labels"]), "'labels' in the metadata")
    if classes == 1000:
        from torchvision.models import ResNet50_Weights

        return ResNet50_Weights.DEFAULT.meta["categories"]
    return [str(i) for i in range(classes)]


def _listed(text: str) -> list[Any]:
    try:
        labels = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        labels = None
    if not isinstance(labels, list):
        raise ValueError(f"labels = '{text[:80]}' in the metadata is not a JSON list of names.")
    return labels


def notes_of(metadata: dict[str, str]) -> dict[str, Any]:
    """What a calibrated classifier's metadata says of its training. Raises ValueError where it is damaged."""
    try:
        notes = json.loads(metadata.get(NOTES, "{}"))
    except (json.JSONDecodeError, RecursionError):
        notes = None
    if not isinstance(notes, dict):
        raise ValueError(f"'{NOTES}' in the metadata is not a JSON object.")
    return notes
