"""Files as an attacker would make them: classifiers, diffusion models and pictures that claim too much, hide code or never end.

`cases()` has a name, the node's kind and a function for each; called with an empty folder and a canary's path, it writes the file
and returns its name. Nothing is random but by a seed, and nothing is large on disk: holes have no bytes.
"""

import builtins
import io
import json
import os
import pickle
import random
import shutil
import socket
import struct
import subprocess
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import numpy
import torch
from PIL import Image
from safetensors.torch import save
from small_classifiers import save_clip

SAFETENSORS_KINDS = {
    "torchvision": "squeezenet1_1.safetensors", "noise_aware": "16x16_classifier.safetensors",
    "adm": "small.safetensors", "dit": "DiT-small.safetensors", "folder": "model/model.safetensors",
}  # fmt: skip
Write = Callable[[Path, Path], str]


def good_files() -> Iterator[tuple[str, str, Write]]:
    """Like `cases`: what those are made of, which loads."""
    for kind, name in SAFETENSORS_KINDS.items():
        yield f"{kind}-good", kind, partial(_write_safetensors, kind, name, lambda good: good)
        if kind != "folder":
            pickled = Path(name).with_suffix(".pt").name
            for legacy in (False, True):
                save_as = partial(_saved_weights, legacy)
                yield f"{kind}-good pt{', legacy' * legacy}", kind, partial(_write_pickled, kind, pickled, save_as)
    yield "zero_shot-good", "zero_shot", partial(_write_altered, zero_shot_files, lambda path, canary: None)
    yield "picture-good", "picture", partial(_write_picture, _encoded)


def cases() -> Iterator[tuple[str, str, Write]]:
    """Name, kind (torchvision, noise_aware, adm, dit, folder, zero_shot or picture) and writer(folder, canary) of each file."""
    for kind, name in SAFETENSORS_KINDS.items():
        for change, make in SAFETENSORS.items():
            yield f"{kind}-safetensors-{change}", kind, partial(_write_safetensors, kind, name, make)
        if kind != "folder":
            pickled = Path(name).with_suffix(".pt").name
            for change, save_as in PICKLES.items():
                yield f"{kind}-pt-{change}", kind, partial(_write_pickled, kind, pickled, save_as)
            for change, special in SPECIAL.items():
                yield f"{kind}-special-{change}", kind, partial(_write_special, name, special)
    for change, metadata in METADATA.items():
        kind = change.split(" ")[0]
        yield f"{kind}-metadata-{change}", kind, partial(_write_metadata, kind, metadata)
    for file, changes in FOLDERS.items():
        for change, entries in changes.items():
            yield f"folder-{file}-{change}", "folder", partial(_write_entries, file, entries)
    for change, alter in ALTERED_FOLDERS.items():
        yield f"folder-{change}", "folder", partial(_write_altered, folder_files, alter)
    for change, alter in ALTERED_ZERO_SHOT.items():
        yield f"zero_shot-{change}", "zero_shot", partial(_write_altered, zero_shot_files, alter)
    yield "torchvision-name of half a character", "torchvision", _write_unprintable
    for file in ("config.json", "preprocessor_config.json", "model.safetensors"):
        for change, special in SPECIAL.items():
            yield f"folder-{file}-{change}", "folder", partial(_write_special_part, file, special)
    for change, draw in PICTURES.items():
        yield f"picture-{change}", "picture", partial(_write_picture, draw)


# What the files are made of: small ones that load.


@cache
def weights(kind: str) -> dict[str, torch.Tensor]:
    """The weights of a network that its node loads. The pack has to be loaded."""
    from benchmarks.in_process import pack_module

    torch.manual_seed(0)
    if kind == "torchvision":
        from torchvision.models import get_model

        return get_model("squeezenet1_1", num_classes=2).state_dict()
    if kind == "noise_aware":
        adm = pack_module("nodes.classifiers.adm")
        return adm.AdmEncoder(adm.AdmConfig(16, 3, 64, 1, (1, 1), (1,), 4)).state_dict()
    if kind == "adm":
        unet = pack_module("nodes.class_conditional.adm_unet")
        return unet.AdmUNet(unet.AdmShape(64, 1, (1, 2), (1,), 3)).state_dict()
    dit = pack_module("nodes.class_conditional.dit")
    network = dit.DiT(dit.DitShape(384, 1, 6, 8, 2, 3)).state_dict()
    return {key: torch.zeros_like(weight) for key, weight in network.items()}


@cache
def folder_files() -> dict[str, bytes]:
    """A Hugging Face classifier of three classes."""
    from tempfile import TemporaryDirectory

    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    config = ViTConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8,
        id2label={0: "cat", 1: "dog", 2: "fox"},
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        ViTForImageClassification(config).save_pretrained(folder)
        ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@cache
def zero_shot_files() -> dict[str, bytes]:
    """A CLIP whose config.json has two prompts."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        save_clip(Path(folder))
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    config = json.loads(files["config.json"]) | {"entropy_guidance": {"labels": ["a circle", "a square"]}}
    return files | {"config.json": json.dumps(config).encode()}


def write_folder(folder: Path, files: Callable[[], dict[str, bytes]] = folder_files) -> Path:
    path = folder / "model"
    path.mkdir(parents=True)
    for name, content in files().items():
        (path / name).write_bytes(content)
    return path


# Safetensors: from a good file's bytes to bad ones.


def _header(content, data: bytes = b"") -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + data


def _parts(good: bytes) -> tuple[dict, bytes]:
    length = struct.unpack("<Q", good[:8])[0]
    return json.loads(good[8 : 8 + length]), good[8 + length :]


def _each_entry(change: Callable[[dict], dict]) -> Callable[[bytes], bytes]:
    def make(good: bytes) -> bytes:
        header, data = _parts(good)
        kept = {"__metadata__": header.pop("__metadata__", {})}
        return _header(kept | {key: {**entry, **change(entry)} for key, entry in header.items()}, data)

    return make


def _random_bytes(good: bytes) -> bytes:
    noise, changed = random.Random(0), bytearray(good)
    for _ in range(64):
        changed[noise.randrange(8, 400)] = noise.randrange(256)
    return bytes(changed)


def _one(shape: list, data_offsets: list, dtype: str = "F32") -> dict:
    return {"weight": {"dtype": dtype, "shape": shape, "data_offsets": data_offsets}}


SAFETENSORS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda good: b"",
    "seven bytes": lambda good: good[:7],
    "header of 2^63 bytes": lambda good: struct.pack("<Q", 2**63) + good[8:],
    "header longer than the file": lambda good: struct.pack("<Q", len(good)) + good[8:],
    "header of 5 MB": lambda good: _header(b"{" + b" " * 5_000_000 + b"}"),
    "header that is no JSON": lambda good: _header(b"{" * 100),
    "header that is no text": lambda good: _header(b"\xff\xfe" * 50),
    "header that is a list": lambda good: _header([1, 2, 3]),
    "header nested a million times": lambda good: _header(b'{"a":' * 500_000),
    "header of numbers without end": lambda good: _header(b'{"a": ' + b"9" * 100_000 + b"}"),
    "60,000 tensors": lambda good: _header({f"k{i}": _one([0], [0, 0])["weight"] for i in range(60_000)}),
    "no tensor": lambda good: _header({}),
    "tensor of 10^18 numbers": lambda good: _header(_one([10**9, 10**9], [0, 4 * 10**18])),
    "tensor of 10^30 numbers": lambda good: _header(_one([10**15, 10**15], [0, 4])),
    "tensor of 40 GB": lambda good: _header(_one([10**10], [0, 4 * 10**10]), b"\0" * 16),
    "shape below 0": _each_entry(lambda entry: {"shape": [-side for side in entry["shape"]]}),
    "shape of fractions": _each_entry(lambda entry: {"shape": [side + 0.5 for side in entry["shape"]]}),
    "shape that is a text": _each_entry(lambda entry: {"shape": "many"}),
    "shape of another rank": _each_entry(lambda entry: {"shape": [*entry["shape"], 1, 1]}),
    "all tensors the same bytes": _each_entry(lambda entry: {"data_offsets": [0, 4], "shape": [1]}),
    "offsets beyond the end": _each_entry(lambda entry: {"data_offsets": [10**12, 10**12 + 4]}),
    "offsets backwards": _each_entry(lambda entry: {"data_offsets": entry["data_offsets"][::-1]}),
    "unknown dtype": _each_entry(lambda entry: {"dtype": "F1024"}),
    "dtype of another size": _each_entry(lambda entry: {"dtype": "F64"}),
    "truncated": lambda good: good[: len(good) - 50],
    "bytes behind the end": lambda good: good + b"\0" * 1000,
    "random bytes": _random_bytes,
    "names without end": lambda good: _header({"k" * 3_000_000: _one([1], [0, 4])["weight"]}, b"\0" * 4),
    "metadata that is no text": lambda good: _header(_parts(good)[0] | {"__metadata__": {"labels": [1, 2]}}, _parts(good)[1]),
    "pickle with code": lambda good: pickle.dumps(Runs(builtins.eval, "1 + 1")),
}  # fmt: skip


def _write_safetensors(kind: str, name: str, make, folder: Path, canary: Path) -> str:
    if kind == "folder":
        good = folder_files()["model.safetensors"]
        write_folder(folder)
    else:
        good = save(weights(kind))
    (folder / name).write_bytes(make(good))
    return "model" if kind == "folder" else name


# Pickles: code in all places, and tensors that are less than they seem.


class Runs:
    """Unpickled, calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _instead_of(kind: str, change: Callable[[torch.Tensor], object]) -> dict:
    return {key: change(weight) for key, weight in weights(kind).items()}


def _plain(content, **_options) -> bytes:
    return pickle.dumps(content, protocol=2)


def _saved(content, **options) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def _saved_weights(legacy: bool, kind: str, canary: Path) -> bytes:
    return _saved(weights(kind), _use_new_zipfile_serialization=not legacy)


def _rezipped(good: bytes, change: Callable[[str, bytes], bytes], compression=zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(file, "w", compression) as new:
        for record in old.namelist():
            new.writestr(record, change(record, old.read(record)))
    return file.getvalue()


def _with_pickle(good: bytes, content: bytes, **options) -> bytes:
    return _rezipped(good, lambda name, old: content if name.endswith("data.pkl") else old, **options)


@cache
def _zeros_that_deflate() -> bytes:
    """A file of torch.save, of some MB, whose storage unpacks to 1 GB."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(_saved({"weight": torch.zeros(1)}))) as old:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new:
            for record in old.namelist():
                with new.open(record, "w") as content:
                    zeros = [b"\0" * 2**20] * 1024
                    content.writelines(zeros if record.endswith("data/0") else [old.read(record)])
    return file.getvalue()


def _legacy_of_a_terabyte(kind: str) -> bytes:
    """A legacy file whose pickle says that a storage has 2^38 numbers."""
    small = _saved({"weight": torch.zeros(77777)}, _use_new_zipfile_serialization=False)
    number = b"J" + struct.pack("<i", 77777)
    assert number in small
    return small.replace(number, b"\x8a\x08" + struct.pack("<q", 2**38))


def _legacy(content: bytes) -> bytes:
    """A pickle after what legacy files begin with."""
    start = _saved({}, _use_new_zipfile_serialization=False)
    return start[: start.index(pickle.dumps({}, protocol=2))] + content


def _endless(size: int) -> bytes:
    """A pickle of so many empty dicts."""
    return b"\x80\x02" + b"}0" * (size // 2) + b"}."


def _many_records(count: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as new:
        for number in range(count):
            new.writestr(f"archive/data/{number:080}", b"")
    return file.getvalue()


def _script() -> bytes:
    """With code that runs where it is unpickled, which PyTorch before 2.6 does even when asked for weights alone."""

    class Writes(torch.nn.Module):
        @torch.jit.export
        def __getstate__(self):
            return torch.zeros(1)

        @torch.jit.export
        def __setstate__(self, state: torch.Tensor):
            torch.save(state, "written by a script")

        def forward(self, x):
            return x

    file = io.BytesIO()
    torch.jit.save(torch.jit.script(Writes()), file)
    return file.getvalue()


def _hashed_without_end() -> bytes:
    """Sixty tuples, each of which holds the one before twice, as the key of a dict."""
    return _legacy(b"\x80\x02}K\x01" + b"q\x01h\x01\x86" * 60 + b"K\x01s.")


def _doubling_text() -> bytes:
    """A text that is written in hexadecimal digits, and these again, twenty-four times."""

    def encoded(text: bytes, codec: bytes) -> bytes:
        return b"c_codecs\nencode\n" + text + b"X" + struct.pack("<I", len(codec)) + codec + b"\x86R"

    text = encoded(b"X" + struct.pack("<I", 1024) + b"a" * 1024, b"latin1")
    for _ in range(24):
        text = encoded(text, b"hex")
    return _legacy(b"\x80\x02}X\x01\x00\x00\x00a" + text + b"s.")


def _under_many_names() -> bytes:
    """A record of a megabyte, read as 256 storages: PyTorch finds it whatever letters are capitals."""
    numbers, names = 2**18, [f"{i:08b}".replace("0", "a").replace("1", "A") for i in range(256)]

    def renamed(name: str, content: bytes) -> bytes:
        if not name.endswith("data.pkl"):
            return content
        for i in reversed(range(256)):
            old = str(i).encode()
            content = content.replace(b"X" + struct.pack("<I", len(old)) + old, b"X\x08\0\0\0" + names[i].encode())
        size = b"J" + struct.pack("<i", numbers)
        return content.replace(b"K\x02t", size + b"t").replace(b"K\x02\x85", size + b"\x85")

    good = _rezipped(_saved({f"weight of {i}": torch.zeros(2) for i in range(256)}), renamed)
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            if "/data/" not in name:
                new.writestr(name, old.read(name))
        new.writestr(f"{old.namelist()[0].split('/')[0]}/data/{names[0]}", bytes(4 * numbers))
    return file.getvalue()


def _of_code(function, *arguments) -> dict[str, Callable[[str, Path], bytes]]:
    """A call of a function in each place of a file that is unpickled."""

    def call(canary):
        return Runs(function, *(str(canary) if part is CANARY else part.replace("CANARY", str(canary)) if isinstance(part, str) else part for part in arguments))  # fmt: skip

    name = f"{function.__module__}.{function.__qualname__}"
    return {
        f"{name} alone": lambda kind, canary: pickle.dumps(call(canary)),
        f"{name} as a weight": lambda kind, canary: _saved({**weights(kind), "more": call(canary)}),
        f"{name} as a weight, legacy": lambda kind, canary: _saved(
            {**weights(kind), "more": call(canary)}, _use_new_zipfile_serialization=False
        ),
    }


CANARY = object()
PICKLES: dict[str, Callable[[str, Path], bytes]] = {
    **_of_code(Path.touch, CANARY),
    **_of_code(os.system, "touch 'CANARY'"),
    **_of_code(os.mkdir, CANARY),
    **_of_code(builtins.exec, "open('CANARY', 'w')"),
    **_of_code(builtins.open, CANARY, "w"),
    **_of_code(subprocess.getoutput, "touch 'CANARY'"),
    "empty": lambda kind, canary: b"",
    "truncated": lambda kind, canary: _saved(weights(kind))[:-5000],
    "truncated, legacy": lambda kind, canary: _saved(weights(kind), _use_new_zipfile_serialization=False)[:-5000],
    "text": lambda kind, canary: b"<html>Not found</html>",
    "list": lambda kind, canary: _saved([*weights(kind).values()]),
    "number": lambda kind, canary: _saved(7),
    "another layer": lambda kind, canary: _saved({**weights(kind), "one.more.weight": torch.zeros(1)}),
    "dict of nothing": lambda kind, canary: _saved({}),
    "names that are numbers": lambda kind, canary: _saved({7: torch.zeros(1), **weights(kind)}),
    "names that are tuples": lambda kind, canary: _saved({("a", 1): torch.zeros(1), **weights(kind)}),
    "stride 0": lambda kind, canary: _saved(_instead_of(kind, lambda w: torch.zeros(()).expand(4_000_000, *w.shape[1:]))),
    "stride 0, same shapes": lambda kind, canary: _saved(_instead_of(kind, lambda w: torch.zeros(()).expand(w.shape))),
    "overlapping": lambda kind, canary: _saved(_instead_of(kind, lambda w: torch.zeros(2000).as_strided((1000, 1000), (1, 1)))),
    "stride 0, legacy": lambda kind, canary: _saved(_instead_of(kind, lambda w: torch.zeros(()).expand(10**6, 100)), _use_new_zipfile_serialization=False),
    "sparse": lambda kind, canary: _saved(_instead_of(kind, lambda w: torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (10**6, 10**6)))),
    "compressed rows": lambda kind, canary: _saved(_instead_of(kind, lambda w: torch.zeros(2, 2).to_sparse_csr())),
    "quantized": lambda kind, canary: _saved(_instead_of(kind, lambda w: torch.quantize_per_tensor(torch.zeros(4), 0.1, 0, torch.qint8))),
    "on the meta device": lambda kind, canary: _saved(_instead_of(kind, lambda w: torch.empty(10**9, device="meta"))),
    "numbers of Python": lambda kind, canary: _saved(_instead_of(kind, lambda w: 1.0)),
    "arrays of numpy": lambda kind, canary: _saved({**weights(kind), "more": numpy.zeros(3)}),
    "bytearray of 100 GB": lambda kind, canary: _plain(Runs(bytearray, 10**11)),
    "tensor of 100 GB": lambda kind, canary: _plain({"weight": Runs(torch.Tensor, 10**5, 10**6)}),
    "tensor of 4 TB": lambda kind, canary: _plain({"weight": Runs(torch.Tensor, 10**6, 10**6)}),
    "storage of 1 TB, legacy": lambda kind, canary: _legacy_of_a_terabyte(kind),
    "pickle of 6 MB": lambda kind, canary: _endless(6_000_000),
    "pickle of 6 MB, legacy": lambda kind, canary: _legacy(_endless(6_000_000)),
    "pickle of 6 MB in an archive": lambda kind, canary: _with_pickle(_saved(weights(kind)), _endless(6_000_000)),
    "pickle of 100 MB, compressed": lambda kind, canary: _with_pickle(_saved({"a": torch.zeros(1)}), b"\0" * 10**8, compression=zipfile.ZIP_DEFLATED),
    "compressed zeros": lambda kind, canary: _zeros_that_deflate(),
    "archive of 40,000 records": lambda kind, canary: _many_records(40_000),
    "archive of no pickle": lambda kind, canary: _many_records(3),
    "archive that ends early": lambda kind, canary: b"PK\3\4" + b"\0" * 100,
    "script": lambda kind, canary: _script(),
    "key that is hashed without end": lambda kind, canary: _hashed_without_end(),
    "text that doubles": lambda kind, canary: _doubling_text(),
    "record under many names": lambda kind, canary: _under_many_names(),
    "bytearray of 100 GB in an archive": lambda kind, canary: _with_pickle(_saved(weights(kind)), _plain(Runs(bytearray, 10**11))),
    "pickle in capitals": lambda kind, canary: _with_pickle(_saved(weights(kind)), _plain(Runs(bytearray, 10**11))).replace(b"data.pkl", b"DATA.PKL"),
    "averages of another kind": lambda kind, canary: _saved({"ema": {"a": "text"}}),
    "OrderedDict of texts": lambda kind, canary: _saved(OrderedDict(a="text")),
    "nested a hundred thousand times": lambda kind, canary: b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
}  # fmt: skip


def _write_pickled(kind: str, name: str, make, folder: Path, canary: Path) -> str:
    (folder / name).write_bytes(make(kind, canary))
    return name


# What is no file, or has no end.


def _terabyte(path: Path) -> None:
    """A safetensors file that is almost all hole."""
    header = _header(_one([2**38], [0, 2**40]))
    with open(path, "wb") as file:
        file.write(header)
        file.truncate(len(header) + 2**40)


def _socket(path: Path) -> None:
    """Bound by a name without its folder, as longer ones are refused."""
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(here)


SPECIAL: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "socket": _socket,
    "dangling link": lambda path: path.symlink_to(path.parent / "nothing"),
    "link to itself": lambda path: path.symlink_to(path),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "folder": os.mkdir,
    "terabyte": _terabyte,
}


def _write_special(name: str, special, folder: Path, canary: Path) -> str:
    special(folder / name)
    return name


def _write_unprintable(folder: Path, canary: Path) -> str:
    """A name with a byte that is no character, which Python reads as half a one."""
    name = os.fsdecode(b"\xff_squeezenet1_1.safetensors")
    (folder / name).write_bytes(save(weights("torchvision")))
    return name


def _write_special_part(file: str, special, folder: Path, canary: Path) -> str:
    path = write_folder(folder) / file
    path.unlink()
    special(path)
    return "model"


# What metadata says.

METADATA: dict[str, dict[str, str]] = {
    "noise_aware image_size 524288": {"image_size": "524288"},
    "noise_aware image_size 0": {"image_size": "0"},
    "noise_aware image_size as a text": {"image_size": "large"},
    "noise_aware heads of 0": {"num_head_channels": "0"},
    "noise_aware heads of 7": {"num_head_channels": "7"},
    "noise_aware unknown schedule": {"noise_schedule": "__import__('os')"},
    "noise_aware labels of 200,000": {"labels": json.dumps(["a"] * 200_000)},
    "noise_aware labels nested": {"labels": "[" * 200_000},
    "noise_aware labels that are an object": {"labels": "{}"},
    "noise_aware notes nested": {"entropy_guidance": "[" * 200_000},
    "noise_aware notes that are a list": {"entropy_guidance": "[]"},
    "torchvision unknown architecture": {"architecture": "../../secrets"},
    "torchvision another architecture": {"architecture": "vit_h_14"},
    "torchvision labels of 200,000": {"labels": json.dumps(["a"] * 200_000)},
    "torchvision labels that become each other": {
        "labels": json.dumps(
            ["a", "a"]
            + [f"a (1){''.join(f' ({i})' for i in range(2, n))}" for n in range(2, 300)]
            + [f"b{i}" for i in range(60_000)]
        )
    },
    "torchvision labels without end": {"labels": '["' + "a" * 5_000_000 + '"]'},
    "torchvision label of half a character": {"labels": json.dumps(["day\ud800", "night"])},
    "adm heads of 999999": {"num_head_channels": "999999"},
    "adm heads of 0": {"num_heads": "0"},
    "adm labels of 200,000": {"labels": json.dumps(["a"] * 200_000)},
    "adm label of half a character": {"labels": json.dumps(["cat", "dog", "\udcff"])},
    "adm unknown schedule": {"noise_schedule": "exec"},
    "dit heads of 7": {"num_heads": "7"},
    "dit unknown prediction": {"prediction": "code"},
    "dit labels nested": {"labels": "[" * 200_000},
}


def _write_metadata(kind: str, entries: dict[str, str], folder: Path, canary: Path) -> str:
    name = SAFETENSORS_KINDS[kind]
    (folder / name).write_bytes(save(weights(kind), entries))
    return name


# Hugging Face folders: entries in the place of a file's own.

CONFIG = {
    **{f"num_labels {n:g}": {"num_labels": n, "id2label": None} for n in (10**7, 10**9, 10**15, -5)},
    **{f"{key} {n:g}": {key: n} for key in ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "image_size", "patch_size", "num_channels") for n in (10**6, 10**9)},
    **{f"{key} {n}": {key: n} for key in ("hidden_size", "num_attention_heads", "patch_size") for n in (0, -1, "many", None)},
    "300,000 labels": {"id2label": {str(i): "a" for i in range(300_000)}},
    "labels that are a list": {"id2label": ["cat", "dog"]},
    "labels without numbers": {"id2label": {"cat": "dog"}},
    **{f"quantized by {method}": {"quantization_config": {"quant_method": method, "load_in_4bit": True, "bits": 4}} for method in ("bitsandbytes", "gptq", "awq", "fp8", "torchao", "unheard-of")},
    "quantized by a text": {"quantization_config": "fp8"},
    **{f"{key} of a repository": {key: "evil/kernel"} for key in ("_attn_implementation", "attn_implementation", "_attn_implementation_internal", "experts_implementation")},
    "kernels for each part": {"attn_implementation": {"": "sdpa", "vision_config": "evil/kernel"}},
    "kernel of a part": {"vision_config": {"_attn_implementation": "evil/kernel:run"}},
    "code of the folder": {"model_type": "custom", "auto_map": {"AutoConfig": "code.Config", "AutoModelForImageClassification": "code.Model"}},
    "code of the folder under a known name": {"architectures": ["Model"], "auto_map": {"AutoConfig": "code.Config"}, "model_type": "unheard-of"},
    "no family": {"model_type": None},
    "family that is a number": {"model_type": 7},
    "language model": {"model_type": "gpt2"},
    "ImageGPT": {"model_type": "imagegpt"},
    "ShieldGemma": {"model_type": "shieldgemma2"},
    "VideoPrism": {"model_type": "videoprism"},
    "another family": {"model_type": "swin", "architectures": ["SwinForImageClassification"]},
    "zero-shot of other weights": {"model_type": "clip", "architectures": ["CLIPModel"], "entropy_guidance": {"labels": ["a", "b"]}},
    "architectures that are a number": {"architectures": 7},
    "architectures of numbers": {"architectures": [7]},
    "notes that are a list": {"entropy_guidance": []},
    "label of half a character": {"id2label": {"0": "cat\ud800", "1": "dog", "2": "fox"}},
    "family of half a character": {"model_type": "\ud800"},
    "weights elsewhere": {"transformers_weights": "other.safetensors"},
    "configuration elsewhere": {"configuration_files": ["config.4.0.0.json"]},
    "configuration of a part elsewhere": {"vision_config": {"configuration_files": ["config.4.0.0.json"]}},
    "layers that are replaced": {"fusion_config": {"patch_embeddings": True}},
    "image processor of a hub": {"image_processor_type": "OneFormerImageProcessor"},
    "timm with a pickle": {"model_type": "timm_wrapper", "architecture": "resnet18", "model_args": {"checkpoint_path": "code.py"}},
    "timm of a hub": {"model_type": "timm_wrapper", "architecture": "hf-hub:evil/model", "model_args": {"pretrained": True}},
    "timm as it publishes": {"model_type": None, "architecture": "resnet18", "pretrained_cfg": {"hf_hub_id": "evil/model"}},
    "timm under another name": {"architecture": "resnet18", "pretrained_cfg": {"hf_hub_id": "evil/model"}},
    "DiNAT": {"model_type": "dinat"},
    "stages without end": {"model_type": "swin", "depths": [1000] * 100_000},
    "empty stages without end": {"model_type": "swin", "depths": [0] * 100_000},
    "pairs of 512 × 512 patches": {"model_type": "levit", "image_size": 512, "patch_size": 1},
    "200,000 lists": {"more": [[]] * 200_000},
    "a number of 400 digits": {"hidden_size": 10**400},
    "counts of 400 digits": {"model_type": "swin", "depths": [1.5, 10**400]},
    "pairs of patches below 0": {"model_type": "levit", "image_size": -512, "patch_size": -1},
}  # fmt: skip
PREPROCESSOR = {
    **{f"size {n:g}": {"size": {"height": n, "width": n}} for n in (20_000, 10**6, 10**9, 1e12, -32)},
    "size 0": {"size": {"height": 0, "width": 0}},
    "size of a line": {"size": {"height": 1, "width": 900_000}},
    "size as a text": {"size": "large"},
    "shortest edge of 20,000": {"size": {"shortest_edge": 20_000}},
    "crop of 20,000": {"do_center_crop": True, "crop_size": {"height": 20_000, "width": 20_000}},
    "padding to 50,000": {"do_pad": True, "pad_size": {"height": 50_000, "width": 50_000}},
    "enlarged before the crop": {"image_processor_type": "ConvNextImageProcessor", "crop_pct": 1e-6, "size": {"shortest_edge": 224}},
    "many patches": {"image_processor_type": "Siglip2ImageProcessor", "max_num_patches": 10**9},
    "more patches than attention has memory for": {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 1, "max_num_patches": 100_000},
    "colours": {"image_processor_type": "ImageGPTImageProcessor", "clusters": [[0, 0, 0], [1, 1, 1]]},
    "unknown processor": {"image_processor_type": "EvilProcessor"},
    "code of the folder": {"image_processor_type": "Processor", "auto_map": {"AutoImageProcessor": "code.Processor"}},
    "mean of texts": {"image_mean": ["a", "b", "c"]},
    "mean of two channels": {"image_mean": [0.5, 0.5]},
    "unknown resampling": {"resample": 999},
    "size of half a character": {"size": "\ud800"},
    "of a hub": {"image_processor_type": "OneFormerImageProcessor", "repo_path": "evil/data", "class_info_file": "classes.json"},
    "of a hub, under an old name": {"image_processor_type": None, "feature_extractor_type": "OneFormerFeatureExtractor", "repo_path": "evil/data", "class_info_file": "classes.json"},
    "parts without end": {"image_processor_type": "GotOcr2ImageProcessorFast", "crop_to_patches": True, "min_patches": 10**6, "max_patches": 10**6},
    "any class": {"image_processor_type": "BaseImageProcessorFast"},
    "of timm": {"image_processor_type": "TimmWrapperImageProcessor", "pretrained_cfg": {}, "architecture": "resnet18"},
}  # fmt: skip
FOLDERS = {"config.json": CONFIG, "preprocessor_config.json": PREPROCESSOR}


def _write_entries(file: str, entries: dict, folder: Path, canary: Path) -> str:
    path = write_folder(folder)
    _write_code(path, canary)
    content = json.loads((path / file).read_bytes()) | entries
    (path / file).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return "model"


def _write_code(path: Path, canary: Path) -> None:
    """A module of the kind that a configuration can name."""
    (path / "code.py").write_text(f"open({str(canary)!r}, 'w')\n")


def _replaced(name: str, content: bytes) -> Callable[[Path, Path], None]:
    return lambda path, canary: (path / name).write_bytes(content)


def _sharded(names: list[str]) -> Callable[[Path, Path], None]:
    def alter(path: Path, canary: Path) -> None:
        (path / "model.safetensors").rename(path / "part.safetensors")
        index = {"metadata": {}, "weight_map": {f"weight {i}": name for i, name in enumerate(names)}}
        (path / "model.safetensors.index.json").write_text(json.dumps(index))

    return alter


def _beside_the_folder(path: Path, canary: Path) -> None:
    """An index that names good weights in the folder above."""
    keys = _parts(folder_files()["model.safetensors"])[0].keys() - {"__metadata__"}
    shutil.copy(path / "model.safetensors", path.parent / "outside.safetensors")
    (path / "model.safetensors").rename(path / "part.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(keys, "../outside.safetensors")}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


def _only_pickled(path: Path, canary: Path) -> None:
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(pickle.dumps(Runs(Path.touch, canary)))


def _hole(name: str) -> Callable[[Path, Path], None]:
    """A file of a terabyte without a byte on disk."""

    def alter(path: Path, canary: Path) -> None:
        (path / name).parent.mkdir(exist_ok=True)
        with open(path / name, "ab") as file:
            file.truncate(2**40)

    return alter


def _shard_of_a_process(path: Path, canary: Path) -> None:
    shutil.copy(path / "model.safetensors", path / "shard-00000-model-00001-of-00001.safetensors")


def _special(name: str, kind: str) -> Callable[[Path, Path], None]:
    def alter(path: Path, canary: Path) -> None:
        (path / name).unlink()
        SPECIAL[kind](path / name)

    return alter


def _vocabulary_of_a_device(file: str) -> Callable[[Path, Path], None]:
    """A tokenizer without files, whose arguments name one without an end."""

    def alter(path: Path, canary: Path) -> None:
        (path / "tokenizer.json").unlink()
        content = json.loads((path / file).read_bytes()) if (path / file).exists() else {}
        (path / file).write_text(json.dumps(content | dict.fromkeys(("vocab", "merges"), "/dev/zero")))

    return alter


def _merged(name: str, entries: dict) -> Callable[[Path, Path], None]:
    """Entries in the place of a JSON file's own; those of an object into it."""

    def alter(path: Path, canary: Path) -> None:
        content = json.loads((path / name).read_bytes())
        for key, value in entries.items():
            content[key] = {**content[key], **value} if isinstance(value, dict) else value
        (path / name).write_text(json.dumps(content))

    return alter


def _make_wide(path: Path) -> None:
    """A network of 2 million weights and 16,000 places in each layer, each of 16,384 numbers."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    config = ViTConfig(
        hidden_size=16, intermediate_size=16_384, num_hidden_layers=4, num_attention_heads=1, image_size=1016, patch_size=8,
        id2label={0: "cat", 1: "dog", 2: "fox"},
    )  # fmt: skip
    ViTForImageClassification(config).half().save_pretrained(path)
    ViTImageProcessor(size={"height": 1016, "width": 1016}).save_pretrained(path)


def _growing_prompts(path: Path, canary: Path) -> None:
    """A tokenizer that writes each letter a twice, thirty times over."""
    content = json.loads((path / "tokenizer.json").read_bytes())
    doubling = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    content["normalizer"] = {"type": "Sequence", "normalizers": [doubling] * 30}
    (path / "tokenizer.json").write_text(json.dumps(content))
    _merged("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})(path, canary)


ALTERED_FOLDERS: dict[str, Callable[[Path, Path], None]] = {
    "config.json of a list": _replaced("config.json", b"[1, 2]"),
    "config.json of no text": _replaced("config.json", b"\xff\xfe\xfd"),
    "config.json nested": _replaced("config.json", b"[" * 500_000),
    "config.json of 9 MB": _replaced("config.json", b'{"model_type": "' + b"a" * 9_000_000 + b'"}'),
    "config.json of a terabyte": _hole("config.json"),
    "config.json that is empty": _replaced("config.json", b""),
    "config.json of a number without end": _replaced("config.json", b'{"num_labels": ' + b"9" * 100_000 + b"}"),
    "preprocessor_config.json of no text": _replaced("preprocessor_config.json", b"\0" * 100),
    "preprocessor_config.json nested": _replaced("preprocessor_config.json", b'{"a":' * 500_000),
    "pickled weights alone": _only_pickled,
    "adapter": _replaced("adapter_config.json", b'{"base_model_name_or_path": "/etc"}'),
    "shards of another folder": _sharded(["../../secret.safetensors"]),
    "shards of the system": _sharded(["/etc/passwd"]),
    "shards that are numbers": _sharded([7]),
    "shards that are missing": _sharded(["gone.safetensors"]),
    "shards that are no weights": _sharded(["config.json"]),
    "shards above the folder": _beside_the_folder,
    "shard of a process": _shard_of_a_process,
    "image processor of a hub in processor_config.json": _replaced(
        "processor_config.json", b'{"image_processor": {"image_processor_type": "OneFormerImageProcessor"}}'
    ),
    "text of a terabyte": _hole("README.md"),
    "layers that make far more numbers than they have": lambda path, canary: _make_wide(path),
}
ALTERED_ZERO_SHOT: dict[str, Callable[[Path, Path], None]] = {
    "tokenizer.json of a terabyte": _hole("tokenizer.json"),
    "tokenizer.json of no text": _replaced("tokenizer.json", b"\xff\xfe\xfd"),
    "tokenizer.json nested": _replaced("tokenizer.json", b"[" * 500_000),
    "tokenizer.json of a list": _replaced("tokenizer.json", b"[1, 2]"),
    "tokenizer.json that is a pipe": _special("tokenizer.json", "pipe"),
    "tokenizer.json that is a device": _special("tokenizer.json", "link to a device"),
    "vocabulary of a terabyte": _hole("bpe.codes"),
    "vocabulary of a device": _vocabulary_of_a_device("tokenizer_config.json"),
    "vocabulary of a device among the special tokens": _vocabulary_of_a_device("special_tokens_map.json"),
    "vocabulary of another computer": _merged(
        "tokenizer_config.json", {"vocab_file": r"\\203.0.113.5\share\vocab.txt"}
    ),
    "template of a terabyte": _hole("additional_chat_templates/more.jinja"),
    "tokenizer of another kind": _merged(
        "tokenizer_config.json", {"tokenizer_class": "ByT5Tokenizer", "extra_ids": 10**9}
    ),
    "words without end": _merged("tokenizer_config.json", {"extra_ids": 10**9}),
    "prompts that grow": _growing_prompts,
    "prompts of any length": _merged("tokenizer_config.json", {"model_max_length": "many"}),
    "prompt of half a character": _merged("config.json", {"entropy_guidance": {"labels": ["a \ud800", "a square"]}}),
    "a million positions": _merged("config.json", {"text_config": {"max_position_embeddings": 10**6}}),
    "kernel of the text encoder": _merged("config.json", {"text_config": {"_attn_implementation": "evil/kernel"}}),
}


def _write_altered(files, alter, folder: Path, canary: Path) -> str:
    alter(write_folder(folder, files), canary)
    return "model"


# Pictures.


def _encoded(size=(64, 64), mode="RGB", format="PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, format, **options)
    return file.getvalue()


def _png(width: int, height: int, data: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts
    )


def _many_passes() -> bytes:
    picture = _encoded((4000, 4000), format="JPEG", progressive=True, quality=20)
    last = picture[picture.rindex(b"\xff\xda") : -2]
    return picture[:-2] + last * 3000 + b"\xff\xd9"


def _parts_without_end() -> bytes:
    """The same of a JPEG that is not progressive: a pass for each colour, and thousands more."""
    picture = _encoded((2000, 2000), format="JPEG", quality=20, subsampling=0)
    start = picture.index(b"\xff\xda")
    one_colour = b"".join(
        b"\xff\xda\0\x08\1" + bytes([colour, 17 * (colour > 1)]) + b"\0\x3f\0" for colour in (1, 2, 3)
    )
    return picture[:start] + one_colour * 1000 + b"\xff\xd9"


ZEROS = zlib.compress(b"\0" * 10**6)
PICTURES: dict[str, Callable[[], bytes]] = {
    "empty.png": lambda: b"",
    "text.jpg": lambda: b"<html>Not found</html>",
    "zeros.png": lambda: b"\0" * 10_000,
    "truncated.png": lambda: _encoded((300, 300))[:-200],
    "truncated.jpg": lambda: _encoded((300, 300), format="JPEG")[:-400],
    "truncated.webp": lambda: _encoded((300, 300), format="WEBP")[:-20],
    "truncated.bmp": lambda: _encoded((300, 300), format="BMP")[:-200],
    "truncated.tif": lambda: _encoded((300, 300), format="TIFF")[:-200],
    "gigapixels.png": lambda: _png(100_000, 100_000, ZEROS),
    "teraclaims.png": lambda: _png(2**31 - 1, 2**31 - 1, ZEROS),
    "no pixels.png": lambda: _png(0, 0, ZEROS),
    "a line.png": lambda: _png(100_000_000, 1, ZEROS),
    "few data.png": lambda: _png(9000, 9000, zlib.compress(b"\0" * 100)),
    "random data.png": lambda: _png(64, 64, random.Random(0).randbytes(5000)),
    "text that unpacks.png": lambda: _png(64, 64, zlib.compress(b"\0" * 64 * 193), (b"zTXt", b"k\0\0" + zlib.compress(b"a" * 10**8))),
    "profile that unpacks.png": lambda: _png(64, 64, b"", (b"iCCP", b"k\0\0" + zlib.compress(b"a" * 10**8))),
    "gigapixels.bmp": lambda: _encoded(format="BMP")[:18] + struct.pack("<ii", 60_000, 60_000) + _encoded(format="BMP")[26:],
    "gigapixels.jpg": lambda: _with_jpeg_size(65_000, 65_000),
    "few data.jpg": lambda: _with_jpeg_size(9000, 9000)[:400],
    "many passes.jpg": _many_passes,
    "parts without end.jpg": _parts_without_end,
    "gigapixels.tif": lambda: _encoded(format="TIFF").replace(struct.pack("<HHII", 256, 4, 1, 64), struct.pack("<HHII", 256, 4, 1, 2**31)),
    "palette.png": lambda: _encoded(mode="P"),
    "transparent.png": lambda: _encoded(mode="RGBA"),
    "grey.jpg": lambda: _encoded(mode="L", format="JPEG"),
    "ink.jpg": lambda: _encoded(mode="CMYK", format="JPEG"),
    "animated.gif as a.png": lambda: _encoded(mode="P", format="GIF"),
    "postscript.jpg": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n(/tmp/x) (w) file closefile\n",
    "pickle.jpg": lambda: pickle.dumps(Runs(builtins.eval, "1 + 1")),
    "vector.png": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "archive.webp": lambda: _many_records(10),
}  # fmt: skip


def _with_jpeg_size(width: int, height: int) -> bytes:
    picture = _encoded(format="JPEG")
    start = picture.index(b"\xff\xc0") + 5
    return picture[:start] + struct.pack(">HH", height, width) + picture[start + 4 :]


def _write_picture(draw, folder: Path, canary: Path) -> str:
    (folder / "picture").write_bytes(draw())
    return "picture"
