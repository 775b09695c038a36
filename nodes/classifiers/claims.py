"""What a file may claim before anything is built or read of it: all of it is bounded by the file's own size.

A few bytes can ask for a million layers, for a tensor of gigabytes or for a picture of gigapixels. Names, shapes and counts
are read first, of which no more than real files have; numbers that size memory are held against the bytes that are there.
"""

import json
import math
import os
import struct
import zipfile
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import comfy.model_management
import torch

from ..common.printable import printable

# Names and shapes of tensors: 0.2 MB in the largest published image models, 1 MB with the names of ImageNet-21k's classes.
LARGEST_DESCRIPTION = 4 * 2**20
LARGEST_JSON = 8 * 2**20  # config.json with ImageNet-21k's classes, which it names twice, has 1.7 MB
LARGEST_TEXT = 64 * 2**20  # the vocabulary of Gemma's tokenizer, which SigLIP 2 has, is 34 MB
MOST_TENSORS = 10_000  # image models have up to some 2,000
LARGEST_NUMBER = 10**6  # in a configuration: features, tokens of a vocabulary, classes
ANY = 2**62  # no limit
MOST_NUMBERS = 2  # in a byte, of four bits each
MOST_LISTS = 50_000  # lists and objects in a JSON file, and
MOST_ENTRIES = 500_000  # entries: ImageNet-21k's names twice, with their synonyms, are some 120,000
# The last bytes of an archive: where its list of records is, and in large ones where that is said, and it in more digits.
END, LOCATOR, END_64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sLQL"), struct.Struct("<4sQ2H2L4Q")
NAMES = 26  # bytes before the lengths of names in the header of a record
ZIP = b"PK\3\4"  # how files of torch.save begin since PyTorch 1.6; older ones are pickles


class TooMuch(ValueError):
    """A file claims more than it may."""


class NotRead(ValueError):
    """A file holds a program, or more than weights and the settings of a training."""


def words_of(error: Exception) -> str:
    """What a library says, in a line that a log can print."""
    words = " ".join(str(error).split())
    if "trust_remote_code" in words:  # it advises to run code of the file's author
        return "it asks for code of its own, which is not run"
    return printable(f"{type(error).__name__}: {words[:200]}")


def check_name(path: Path) -> None:
    """Raises ValueError for a path of bytes that are no text, which the libraries that read weights cannot open."""
    if str(path) != printable(str(path)):
        raise ValueError("its name, or that of a folder that it is in, is no text (UTF-8): rename it.")


def check_regular(path: Path) -> None:
    """Raises ValueError for what cannot be read to an end or not at all: pipes, devices, sockets, dangling links."""
    if not os.path.isfile(path):
        raise ValueError(
            f"{path.name} is not a regular file but a pipe, device, socket or link to nothing: use a copy."
        )


def check_size(*paths: Path) -> None:
    """Raises ValueError for weights that this computer cannot hold."""
    size = sum(path.stat().st_size for path in paths)
    memory = comfy.model_management.get_total_memory(torch.device("cpu"))
    if size > memory:
        raise TooMuch(f"its {size / 2**30:.0f} GB are more than this computer's memory of {memory / 2**30:.0f} GB.")


def read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file. Raises ValueError for anything else, and for more than LARGEST_JSON bytes."""
    check_regular(path)
    if path.stat().st_size > LARGEST_JSON:
        raise TooMuch(f"{path.name} has {path.stat().st_size:,} bytes; at most {LARGEST_JSON:,} are read.")
    text = path.read_bytes()
    if text.count(b"[") + text.count(b"{") > MOST_LISTS or text.count(b",") > MOST_ENTRIES:
        raise TooMuch(f"{path.name} has far more lists or entries than the configuration of a network.")
    return _json_object(text, path.name)


def entries_of(values: Any) -> Iterator[tuple[str, Any]]:
    """All entries of JSON's objects by their names, whatever they are in; those of a list by the list's."""
    left = [("", values)]
    while left:
        key, value = left.pop()
        yield key, value
        if isinstance(value, dict):
            left += value.items()
        elif isinstance(value, list):
            left += [(key, entry) for entry in value]


def check_numbers(values: Any, name: str, limits: Mapping[str, int] = {}) -> None:
    """Raises ValueError for a number beyond LARGEST_NUMBER in the JSON of a file of this name, or beyond the limit for
    names that hold a word."""
    for key, value in entries_of(values):
        if isinstance(value, (int, float)):
            most = _limit(key, limits, LARGEST_NUMBER)
            if abs(value) > most:
                raise TooMuch(f"{name} says {key} = {_float(value):.6g}; numbers up to {most:,} can be built.")


def check_counts(values: Any, name: str, limits: Mapping[str, int]) -> None:
    """Raises ValueError where a list of counts adds up to more than the limit for names that hold a word.

    Each is one that `check_numbers` took, and counts as one at least, since there is something of each. Lists in lists hold
    other numbers than counts: PP-LCNet's blocks are sizes.
    """
    for _, entry in entries_of(values):
        for key, value in entry.items() if isinstance(entry, dict) else ():
            most = _limit(key, limits, ANY)
            counts = [max(abs(n), 1) for n in value if isinstance(n, (int, float))] if isinstance(value, list) else []
            if not sum(counts) <= most:  # as NaN is not, either
                raise TooMuch(
                    f"{name} says {key} = {len(counts):,} numbers that add up to {sum(counts):.6g}; up to {most:,} in "
                    "all can be built."
                )


def _float(number: int | float) -> float:
    """Infinity for a whole number that is too large for a float."""
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _limit(key: str, limits: Mapping[str, int], default: int) -> int:
    return min((limit for word, limit in limits.items() if word in key), default=default)


def safetensors_shapes(path: Path) -> dict[str, torch.Size]:
    """The shapes of a safetensors file's tensors. Raises ValueError where its header is none, or too large."""
    check_regular(path)
    check_size(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size - 8:
            raise ValueError(f"{path.name} is damaged: its header is longer than the file.")
        if length > LARGEST_DESCRIPTION:
            raise TooMuch(f"the header of {path.name} has {length:,} bytes; at most {LARGEST_DESCRIPTION:,} are read.")
        header = _json_object(file.read(length), f"the header of {path.name}")
    header.pop("__metadata__", None)
    try:
        shapes = {key: torch.Size(entry["shape"]) for key, entry in header.items()}
    except (TypeError, LookupError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{path.name} is damaged: its header does not give the tensors' shapes.") from error
    if any(side < 0 for shape in shapes.values() for side in shape) or (
        sum(map(math.prod, shapes.values())) > MOST_NUMBERS * path.stat().st_size
    ):
        raise TooMuch(f"{path.name} is damaged: its header claims more tensors than the file holds.")
    _check_count(len(shapes))
    return shapes


def _check_count(tensors: int) -> None:
    if tensors > MOST_TENSORS:
        raise TooMuch(f"it has {tensors:,} tensors; at most {MOST_TENSORS:,} are read.")


def _json_object(text: bytes, whose: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{whose} is damaged: it cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{whose} is damaged: it holds no JSON object.")
    return content


class Description:
    """A file of which no more than LARGEST_DESCRIPTION bytes are read but for those that go straight into tensors.

    What unpickles, or lists an archive, calls read and readline; tensors are filled by readinto. It has no fileno, so
    that PyTorch takes no other way.
    """

    def __init__(self, file: BufferedReader) -> None:
        self._file, self._left = file, LARGEST_DESCRIPTION
        self.readinto, self.seek, self.tell = file.readinto, file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        return self._count(self._file.read(self._most(size)))

    def readline(self, size: int = -1) -> bytes:
        return self._count(self._file.readline(self._most(size)))

    def _most(self, size: int) -> int:
        return self._left + 1 if size < 0 else min(size, self._left + 1)

    def _count(self, text: bytes) -> bytes:
        self._left -= len(text)
        if self._left < 0:
            raise TooMuch(
                f"what describes its tensors has more than {LARGEST_DESCRIPTION:,} bytes, the most that is read."
            )
        return text


def check_archive(file: BufferedReader) -> list[bytes]:
    """The pickles in a file of torch.save. Raises ValueError where it would unpack into more than it is, or into a huge pickle,
    and for a TorchScript program, which PyTorch before 2.6 would run. PyTorch finds records in capitals, too."""
    size = os.fstat(file.fileno()).st_size
    _check_directory(file, size)
    records = zipfile.ZipFile(Description(file)).infolist()
    pickles = [record for record in records if record.filename.lower().endswith(".pkl")]
    if any(record.filename.lower().endswith("constants.pkl") for record in pickles):
        raise NotRead("it is a TorchScript program, which is not run: save the network's state_dict() alone.")
    is_compressed = any(record.compress_type != zipfile.ZIP_STORED for record in records)
    if is_compressed or sum(record.file_size for record in records) > size:
        raise TooMuch(
            "it is compressed, or claims more than it holds: save it again with torch.save, which does neither."
        )
    description = sum(record.file_size for record in pickles)
    if description > LARGEST_DESCRIPTION:
        raise TooMuch(
            f"what describes its tensors has {description:,} bytes; at most {LARGEST_DESCRIPTION:,} are read."
        )
    return [_content(file, record) for record in pickles]


def _check_directory(file: BufferedReader, size: int) -> None:
    """Raises ValueError where readers of archives could find different lists of records: the one of torch.save stands at the
    end, where the last bytes say, which are nothing but that."""
    file.seek(max(size - END.size - LOCATOR.size - END_64.size, 0))
    tail = file.read()
    signature, *_, length, start, comment = END.unpack(tail[-END.size :])
    position, tail, is_told_twice = size - END.size, tail[: -END.size], True
    if tail[-LOCATOR.size :].startswith(b"PK\6\7"):
        *_, place, _ = LOCATOR.unpack(tail[-LOCATOR.size :])
        position -= LOCATOR.size + END_64.size
        signature_64, *_, length_64, start_64 = END_64.unpack(tail[: -LOCATOR.size])
        told = {(length, length_64), (start, start_64)}
        is_told_twice = place == position and signature_64 == b"PK\6\6" and all(a in (b, 2**32 - 1) for a, b in told)
        length, start = length_64, start_64
    if signature != b"PK\5\6" or comment or not is_told_twice or start + length != position:
        raise ValueError("it is damaged: its list of records is not where it says.")


def _content(file: BufferedReader, record: zipfile.ZipInfo) -> bytes:
    """Of a record that is not compressed, whose sum PyTorch need not have written."""
    file.seek(record.header_offset + NAMES)
    name, more = struct.unpack("<2H", file.read(4))
    file.seek(name + more, os.SEEK_CUR)
    return file.read(record.file_size)


def check_held(weights: Mapping[str, torch.Tensor], size: int) -> None:
    """Raises ValueError for tensors that are not plain ones, or that together are more than a file of so many bytes."""
    _check_count(len(weights))
    for key, weight in weights.items():
        if not isinstance(key, str):
            raise ValueError(f"{key!r:.80} is not the name of a weight: save the network's state_dict() alone.")
        if weight.layout != torch.strided or weight.is_quantized or weight.is_nested or weight.device.type != "cpu":
            raise ValueError(
                f"the weight '{key:.80}' is sparse, quantized or without numbers: save it as a plain tensor."
            )
    claimed = sum(weight.nbytes for weight in weights.values())
    if claimed > size:
        raise TooMuch(
            f"its tensors are {claimed:,} bytes and the file only {size:,}, so that they share or repeat their numbers: "
            "save copies of them."
        )
