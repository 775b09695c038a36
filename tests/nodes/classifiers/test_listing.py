"""What the loader lists: all that ComfyUI would list, no longer than it is there, and at no cost where nothing changed."""

import os
import time
from collections import Counter
from pathlib import Path

import folder_paths
import pytest
import torch
from torchvision.models import get_model

from benchmarks.classifier_compatibility import listed
from benchmarks.in_process import pack_module

LONG_AGO = time.time() - 1000


@pytest.fixture
def below(node, models):
    """below() lists the models."""
    return lambda: sorted(pack_module("nodes.classifiers.listing").names_below(str(models)))


@pytest.fixture
def asked(monkeypatch):
    """How often a folder or a file's status was asked of the disk, by the function of `os`."""
    counts = Counter()

    def count(name, function):
        def counted(*args, **kwargs):
            counts[name] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(os, name, counted)

    for name in ("stat", "lstat", "scandir", "listdir"):
        count(name, getattr(os, name))
    return counts


def put(*files: Path):
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def settle(folder: Path):
    """As if nothing had changed below it for a while."""
    for inner, _, _ in os.walk(folder):
        os.utime(inner, (LONG_AGO, LONG_AGO))


def test_linked_folders_and_all_endings_are_listed(models, tmp_path, below):
    put(models / "a.safetensors", models / "B.PTH", models / "inner" / "c.ckpt", models / "inner" / "deep" / "d.Pt")
    put(models / "e.sft", models / "notes.txt", models / ".git" / "f.pt", models / "config.json")
    put(models / "inner" / ".unfinished-x1" / "saved" / "config.json")  # ComfyUI was ended while it saved one
    put(models / "model" / "config.json", models / "model" / "model.safetensors", models / "model" / "more" / "g.pt")
    put(tmp_path / "elsewhere" / "h.pt", tmp_path / "elsewhere" / "model" / "config.json")
    (models / "linked").symlink_to(tmp_path / "elsewhere")
    (models / "i.pt").symlink_to(tmp_path / "elsewhere" / "h.pt")
    (models / "inner" / "up").symlink_to(models)  # without end
    (models / "itself.pt").symlink_to(models / "itself.pt")
    os.mkfifo(models / "pipe.pt")
    listed = [
        "B.PTH", "a.safetensors", "e.sft", "i.pt", "inner/c.ckpt", "inner/deep/d.Pt", "linked/h.pt", "linked/model", "model",
    ]  # fmt: skip
    assert below() == listed
    find = pack_module("nodes.classifiers.listing").path_below
    assert all(find(str(models), name) == models / name for name in listed)
    others = (
        "",
        ".",
        "..",
        "../a.safetensors",
        "inner/.unfinished-x1/saved",
        "/etc",
        "inner/../a.safetensors",
        "inner//c.ckpt",
        "./a.safetensors",
        "inner",
    )
    others += ("notes.txt", "pipe.pt", "itself.pt", "model/model.safetensors", "model/more/g.pt", ".git/f.pt", "a\0.pt")
    assert not [name for name in others if find(str(models), name)]


def test_loops_between_folders_end(models, below):
    put(models / "a" / "a.pt", models / "b" / "b.pt")
    (models / "a" / "to b").symlink_to(models / "b")
    (models / "b" / "to a").symlink_to(models / "a")
    assert below() == ["a/a.pt", "a/to b/b.pt", "b/b.pt", "b/to a/a.pt"]


def test_every_change_is_seen(models, tmp_path, below):
    put(models / "a.pt", models / "inner" / "b.pt")
    settle(models)
    assert below() == ["a.pt", "inner/b.pt"]
    put(models / "inner" / "c.pt")
    assert below() == ["a.pt", "inner/b.pt", "inner/c.pt"]
    settle(models)
    below()
    put(models / "inner" / "config.json")
    assert below() == ["a.pt", "inner"]
    settle(models)
    below()
    (models / "a.pt").unlink()
    (models / "d.pt").symlink_to(tmp_path / "later.pt")
    assert below() == ["inner"]
    settle(models)
    assert below() == ["inner"]
    put(tmp_path / "later.pt")  # to which a link has led, and nothing below the models changes
    assert below() == ["d.pt", "inner"]


def test_a_change_within_a_step_of_the_clock_is_seen(models, below):
    """File systems tell a folder's time in steps: a second change in the same step leaves it as it was."""
    put(models / "a.pt")
    now = time.time_ns() // 10**9 * 10**9
    os.utime(models, ns=(now, now))
    assert below() == ["a.pt"]
    put(models / "b.pt")
    os.utime(models, ns=(now, now))
    assert below() == ["a.pt", "b.pt"]


def test_nothing_is_looked_through_twice(models, below, asked):
    put(*(models / f"{number % 20}" / f"{number}.pt" for number in range(2000)))
    settle(models)
    asked.clear()
    assert len(below()) == 2000
    assert asked["scandir"] == 21 and asked["listdir"] == 0 and asked["stat"] + asked["lstat"] <= 2 * 21
    asked.clear()
    assert len(below()) == 2000
    assert asked["scandir"] + asked["listdir"] == 0 and asked["stat"] + asked["lstat"] == 21


def test_a_name_is_found_without_a_list(models, asked):
    put(*(models / f"{number % 20}" / f"{number}.pt" for number in range(2000)))
    asked.clear()
    assert pack_module("nodes.classifiers.files")._path("19/1999.pt") == models / "19" / "1999.pt"
    assert asked["scandir"] + asked["listdir"] == 0 and asked["stat"] + asked["lstat"] < 20


def test_a_file_that_has_gone_since_it_was_listed_is_an_error_in_our_words(load, models):
    put(models / "resnet18.pth")
    assert "resnet18.pth" in pack_module("nodes.classifiers.files").classifier_names()
    (models / "resnet18.pth").unlink()
    with pytest.raises(ValueError, match="classifier_name = 'resnet18.pth' is not in ComfyUI's model folder"):
        load("resnet18.pth")


@pytest.mark.parametrize("name", [5, None, ["resnet18.pth"]])
def test_a_linked_name_that_is_no_text_is_an_error_in_our_words(load, name):
    with pytest.raises(ValueError, match="is not in ComfyUI's model folder"):
        load(name)


@pytest.mark.parametrize("name", ["SQUEEZENET1_1.PTH", "squeezenet1_1.ckpt", "linked/squeezenet1_1.Pt"])
def test_what_is_listed_loads(load, models, tmp_path, name):
    (tmp_path / "elsewhere").mkdir()
    (models / "linked").symlink_to(tmp_path / "elsewhere")
    torch.save(get_model("squeezenet1_1", num_classes=2).state_dict(), models / name)
    assert name in pack_module("nodes.classifiers.files").classifier_names()
    assert load(name).labels == ("0", "1")


@pytest.fixture
def output(node, tmp_path):
    """ComfyUI's output folder, the classifiers in which are listed behind those of `models`."""
    before = folder_paths.get_output_directory()
    folder_paths.set_output_directory(str(tmp_path / "output"))
    with listed(tmp_path / "output" / "classifiers"):
        yield tmp_path / "output" / "classifiers"
    folder_paths.set_output_directory(before)


@pytest.mark.parametrize("kind", ["entropy-guidance-demo", "squeezenet1_1.pth"])
def test_a_saved_classifier_that_was_moved_does_not_hide_the_next(load, node, models, output, kind):
    """Folders and files alike: both would have one name, and the loader takes that of the first folder."""
    torch.save(get_model("squeezenet1_1", num_classes=2).state_dict(), models / "squeezenet1_1.pth")
    classifier = load(kind)

    def save() -> str:
        before = set(output.glob("mine/*"))
        node("EntropyGuidanceSaveClassifier", classifier=classifier, filename_prefix="mine/copy")
        (new,) = set(output.glob("mine/*")) - before
        return new.relative_to(output).as_posix()

    first = save()
    (models / "mine").mkdir()
    (output / first).rename(models / first)
    second = save()
    assert second != first
    assert {first, second} <= set(pack_module("nodes.classifiers.files").classifier_names())
    find = pack_module("nodes.classifiers.files")._path
    assert find(first) == models / first and find(second) == output / second
