"""Files whose names or texts hold half a character: each ends in one error, and the server goes on; HTML in them is text.

ComfyUI logs an error's message and its whole traceback, and its worker ends where a log cannot print them.
"""

import json
import os
import shutil

import pytest
from graphs import classifier_guided
from odd_names import need_odd_names

from tools.environment import REPOSITORY

CLASSIFIER = REPOSITORY / "demo" / "weights" / "classifier"


def a_name(folder):
    need_odd_names(folder)
    name = os.fsdecode(b"\xff_resnet18.pth")
    (folder / name).touch()
    return name


def a_size(folder):
    path = folder / "half a size"
    shutil.copytree(CLASSIFIER, path)
    file = path / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"size": "\ud800"}))
    return path.name


def a_label(folder):
    """One of a network that loads, beside which a misspelt class is looked for."""
    return _network(folder, "day\ud800")


def _network(folder, label):
    import torch
    from safetensors.torch import save_file
    from torchvision.models import get_model

    torch.manual_seed(0)
    path = folder / "squeezenet1_1-labels.safetensors"
    save_file(get_model("squeezenet1_1", num_classes=2).state_dict(), path, {"labels": json.dumps([label, "night"])})
    return path.name


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (a_name, r"\udcff_resnet18.pth: its name, or that of a folder that it is in, is no text (UTF-8): rename it"),
        (a_size, "preprocessor_config.json describes no image processor"),
        (a_label, r"names class 0 'day\ud800', with half a character"),
    ],
)
def test_ends_in_one_error_and_the_server_goes_on(server, write, message):
    folder = server.log.parent / "classifiers"  # below the output folder, where saved ones are
    folder.mkdir(exist_ok=True)
    name = write(folder)
    path = folder / name
    try:
        error = server.error(server.run(classifier_guided(loader={"classifier_name": name}, score={"labels": "dya"})))
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert message in error["exception_message"] and error["node_id"] == "classifier"
    assert error["exception_message"].encode()
    assert server.pictures(server.run(classifier_guided()))


def test_html_in_a_class_name_is_text_to_the_frontend(server):
    """It takes what a node says for HTML, and a classifier may come from anywhere."""
    folder = server.log.parent / "classifiers"
    folder.mkdir(exist_ok=True)
    path = folder / _network(folder, "<img src=x onerror=alert(1)>")
    try:
        graph = classifier_guided(loader={"classifier_name": path.name}, score={"labels": "0"})
        _, texts = server.run_and_listen(graph)
    finally:
        path.unlink()
    (said,) = texts["apply"]
    assert "‹img src=x" in said and "<" not in said
