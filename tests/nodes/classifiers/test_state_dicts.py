"""Files of weights as training scripts save them: what is taken of them, and what is refused because it could be wrong."""

import logging

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
    assert name == "module." * 997 + "weight"


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
