"""Files of weights as training scripts save them: what is taken of them, and what is refused because it could be wrong."""

import io
import logging
from collections import Counter

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.in_process import pack_module

WEIGHTS = {"conv.weight": torch.full((2, 3), 1.0), "fc.bias": torch.full((4,), 2.0)}
OTHERS = {name: -weight for name, weight in WEIGHTS.items()}
OPTIMIZER = {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]}


def within(wrapper: str, weights=WEIGHTS) -> dict:
    return {f"{wrapper}{name}": weight for name, weight in weights.items()}


@pytest.fixture
def read(node, tmp_path):
    """read(content) gives the weights that a file of torch.save has for the pack."""

    def read_content(content):
        torch.save(content, tmp_path / "saved.pth")
        return pack_module("nodes.classifiers.weights").read_weights(tmp_path / "saved.pth")[0]

    return read_content


def same(weights: dict, expected: dict) -> bool:
    return weights.keys() == expected.keys() and all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"state_dict": WEIGHTS, "epoch": 3, "arch": "resnet50"},
        {"model": WEIGHTS, "optimizer": OPTIMIZER},
        {"model": WEIGHTS, "lr_scheduler": {"milestones": Counter([30, 60, 60]), "gamma": 0.1}},
        {"model": WEIGHTS, "args": {"sizes": {1, 2}, "root": 1j, "rng": b"abc\xff", "state": bytearray(b"abc\xff")}},
        {"model_state_dict": WEIGHTS, "optimizer_state_dict": OPTIMIZER, "loss": 0.5},
        {"net": WEIGHTS, "acc": 93.5},
        {"state_dict": within("module.")},
        {"state_dict": within("model."), "pytorch-lightning_version": "2.5"},
        within("_orig_mod."),
        within("module._orig_mod."),
        {"model": OTHERS, "ema": WEIGHTS, "opt": OPTIMIZER},
        {"state_dict": OTHERS, "state_dict_ema": WEIGHTS},
        {"model": OTHERS, "model_ema": {"n_averaged": torch.tensor(7), **within("module.")}},
        {"model": WEIGHTS, "ema": {"decay": 0.999, "shadow": [torch.zeros(2)]}},
        {"model": WEIGHTS, "ema": None, "state_dict": {}},
    ],
)
def test_weights_are_taken_out_of_what_a_training_saved(read, content):
    assert same(read(content), WEIGHTS)


def test_the_log_says_that_weights_are_averaged(read, caplog):
    with caplog.at_level(logging.INFO):
        read({"model": WEIGHTS})
        assert "averaged" not in caplog.text
        read({"model": OTHERS, "model_ema": WEIGHTS})
    assert "the averaged weights 'model_ema' are used" in caplog.text


@pytest.mark.parametrize(
    "weights",
    [
        {**within("module."), "head.weight": torch.zeros(1)},
        {**WEIGHTS, "n_averaged": torch.tensor(7)},
        {"modules.weight": torch.zeros(1)},
    ],
)
def test_names_that_not_all_weights_begin_with_stay(read, weights):
    assert same(read(weights), weights)


def test_a_name_of_wrappers_alone_is_not_unwrapped_without_end(read):
    """A file of megabytes may have one, and each time a copy is made."""
    (name,) = read({"module." * 1000 + "weight": torch.zeros(1)})
    assert name == "module." * (1000 - len(pack_module("nodes.classifiers.state_dicts").WRAPPERS)) + "weight"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": WEIGHTS, "state_dict": OTHERS}, "holds several state dicts, model, state_dict: save one of them alone"),
        ({"model": WEIGHTS, "ema": WEIGHTS, "model_ema": OTHERS}, "holds several state dicts, ema, model_ema"),
        ({"weights": WEIGHTS}, "is not a state dict of tensors, and has none under model, state_dict, .*alone"),
        ({"model": {**WEIGHTS, "epoch": 3}}, "is not a state dict of tensors"),
        ([WEIGHTS], "is not a state dict of tensors"),
    ],
)  # fmt: skip
def test_what_could_be_the_wrong_weights_is_refused(read, content, message):
    with pytest.raises(ValueError, match=message):
        read(content)


def test_wrappers_of_safetensors(node, tmp_path):
    save_file(within("module."), tmp_path / "saved.SAFETENSORS", {"labels": "[]"})
    weights, metadata = pack_module("nodes.classifiers.weights").read_weights(tmp_path / "saved.SAFETENSORS")
    assert same(weights, WEIGHTS) and metadata == {"labels": "[]"}


def test_sums_of_records_need_not_be_written(read):
    if not hasattr(torch.serialization, "set_crc32_options"):
        pytest.skip("this PyTorch always writes them")
    torch.serialization.set_crc32_options(False)
    try:
        assert same(read(WEIGHTS), WEIGHTS)
    finally:
        torch.serialization.set_crc32_options(True)


def test_readers_find_one_list_of_records(node, tmp_path):
    """Python's would shift one that is not where it says, where PyTorch's reads another."""
    path = tmp_path / "saved.pth"
    torch.save(WEIGHTS, path)
    claims, good = pack_module("nodes.classifiers.claims"), path.read_bytes()
    for bad in (good[:4] + bytes(96) + good, good[:-2] + b"\3\0abc"):
        path.write_bytes(bad)
        with open(path, "rb") as file, pytest.raises(ValueError, match="its list of records is not where it says"):
            claims.check_archive(file)
    path.write_bytes(good)
    with open(path, "rb") as file:
        assert claims.check_archive(file)


def opcodes(*parts: bytes) -> io.BytesIO:
    return io.BytesIO(b"\x80\x02" + b"".join(parts) + b".")


HASHED_WITHOUT_END = b"K\x01" + b"q\x01h\x01\x86" * 60
ORDERED = b"ccollections\nOrderedDict\n"
TEXT = b"X\0\x10\0\0" + b"a" * 4096


@pytest.mark.parametrize(
    ("pickle", "message"),
    [
        (opcodes(b"}", HASHED_WITHOUT_END, b"K\x01s"), "would hash or copy"),
        (opcodes(ORDERED, b"]](", HASHED_WITHOUT_END, b"K\x01ea\x85R"), "would hash or copy"),
        (opcodes(ORDERED, b")R]](", HASHED_WITHOUT_END, b"K\x01eab"), "would hash or copy"),
        (opcodes(b"](c_codecs\nencode\nq\1", TEXT, b"X\6\0\0\0latin1\x86q\2R", b"h\1h\2R" * 5000, b"e"), "would hash or copy"),
        (opcodes(b"](ctorch\nSize\nq\1](", b"K\1" * 4096, b"e\x85q\2R", b"h\1h\2R" * 5000, b"e"), "would hash or copy"),
        (opcodes(b"](ctorch\nSize\nq\1]q\3(", b"K\1" * 4096, b"eh\3\x85q\2R", b"h\1h\2R" * 5000, b"e"), "would hash or copy"),
        (opcodes(b"c_codecs\nencode\n", TEXT, b"X\x08\0\0\0punycode\x86R"), "something else than a text"),
        (opcodes(b"c__builtin__\nbytearray\nK\x09\x85R"), "something else than a text"),
        (opcodes(b"ctorch\nTensor\nK\x09\x85R"), "'torch Tensor'"),
        (opcodes(b"(X\7\0\0\0storagectorch\nFloatStorage\n", HASHED_WITHOUT_END, b"X\3\0\0\0cpuK\1tQ"), "no record of numbers"),
        (opcodes(b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0aX\3\0\0\0cpuK\1tQ"), "no record of numbers"),
        (opcodes(b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0007X\3\0\0\0cpuJ\0\0\1\0tQ"), "reads 65,536 numbers"),
        (opcodes(b"s"), "takes what is not there"),
    ],
    ids=range(13),
)  # fmt: skip
def test_what_a_pickle_would_do_is_found_out(node, pickle, message):
    with pytest.raises(ValueError, match=message):
        pack_module("nodes.classifiers.pickles").check_pickle(pickle, 1000)


def test_what_comfyui_allows_in_checkpoints_is_read(node):
    """Stand-ins for classes of PyTorch Lightning and numpy, in files that hold weights beside them."""
    name = b"cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n"
    pack_module("nodes.classifiers.pickles").check_pickle(opcodes(b"}", name, b"K\1s"), 1000)


def test_deep_stacks_take_no_longer_than_they_are(node):
    depth = 200_000
    pickle = opcodes(b"(", b"K\1" * depth, b"(t" * depth, b"t")
    pack_module("nodes.classifiers.pickles").check_pickle(pickle, 1000)
