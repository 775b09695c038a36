"""Files that an attacker made: all are refused in the node's words, with little time and memory, and no code of theirs runs."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hostile_files import cases

from tools.environment import REPOSITORY

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux limits a process's memory")
SUPPORT = Path(__file__).parents[2] / "support"
SECONDS = 10  # of the processor; most take hundredths
BYTES = 200 * 2**20
# What libraries advise, and no one should do.
OF_LIBRARIES = ("weights_only", "trust_remote_code", "ignore_mismatched_sizes")
INPUTS = {"adm": "model_name", "dit": "model_name"}


@pytest.fixture(scope="module")
def tried(tmp_path_factory) -> dict:
    """What came of each file, by its name, and what was left on disk."""
    root = tmp_path_factory.mktemp("hostile")
    scratch = root / "scratch"
    scratch.mkdir()
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(SUPPORT)]), "OMP_NUM_THREADS": "1",
        **dict.fromkeys(("HOME", "TMPDIR", "HF_HOME", "TORCH_HOME", "XDG_CACHE_HOME"), str(scratch)),
    }  # fmt: skip
    command = [sys.executable, SUPPORT / "try_hostile_files.py", root]
    process = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
    lines = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
    assert not process.returncode, f"after {lines[-1:]}: {process.stderr[-5000:]}"
    return {line["name"]: line for line in lines}


def test_what_they_are_made_of_loads(tried):
    good = {name: entry for name, entry in tried.items() if "-good" in name}
    assert len(good) == 15 and all(entry["loaded"] for entry in good.values()), good


def test_all_are_refused_in_the_nodes_words(tried):
    hostile = {name: entry for name, entry in tried.items() if "-good" not in name and name not in ("left", "asked")}
    assert hostile.keys() == {name for name, *_ in cases()}
    for name, entry in hostile.items():
        assert not entry["loaded"] and entry["error"] == "ValueError", entry
        kind, message = name.split("-")[0], entry["message"]
        if kind != "picture":
            folder = entry["file"].split("/")[0]
            assert message.startswith(f"{INPUTS.get(kind, 'classifier_name')} = '{folder}/"), entry
        assert 10 < len(message) < 1500 and not any(advice in message for advice in OF_LIBRARIES), entry


@pytest.mark.parametrize(
    ("row", "kinds"),
    [
        ("torchvision and noise-aware classifiers", {"torchvision", "noise_aware"}),
        ("ADM, DiT", {"adm", "dit"}),
        ("Hugging Face folders, 18 of them zero-shot", {"folder", "zero_shot"}),
        ("pictures", {"picture"}),
    ],
)
def test_the_page_on_trust_says_how_many(row, kinds):
    counts = Counter(kind for _, kind, _ in cases())
    page = (REPOSITORY / "docs" / "trust.md").read_text(encoding="utf-8")
    assert f"| {row} | {sum(counts[kind] for kind in kinds)} |" in page and counts["zero_shot"] == 18


def test_their_messages_and_tracebacks_can_be_printed(tried):
    """A log cannot print half a character, and ComfyUI's worker ends where it tries to."""
    unprintable = [name for name in tried if "half a character" in name]
    assert len(unprintable) == 7 and not [tried[name] for name in unprintable if tried[name]["loaded"]]
    assert not [name for name, entry in tried.items() if not entry.get("printable", True)]


def test_what_is_compressed_is_said_to_be(tried):
    """The zeros of a gigabyte are refused by their size in the index, not for lack of memory."""
    for kind in ("torchvision", "noise_aware", "adm", "dit"):
        assert "it is compressed" in tried[f"{kind}-pt-compressed zeros"]["message"]


def test_numbers_that_no_float_holds_are_named(tried):
    assert "hidden_size = inf; numbers up to" in tried["folder-config.json-a number of 400 digits"]["message"]
    assert "depths = inf; numbers up to" in tried["folder-config.json-counts of 400 digits"]["message"]


def test_files_of_other_computers_are_not_looked_for(tried):
    """Windows would ask 203.0.113.5 as soon as it looks whether the file exists."""
    (message,) = (entry["message"] for name, entry in tried.items() if "vocabulary of another computer" in name)
    assert "a file of another computer: remove the entry" in message


def test_a_folder_reads_no_weights_of_another(tried):
    assert "names files that are not in the folder" in tried["folder-shards above the folder"]["message"]


def test_nothing_is_asked_of_a_network(tried):
    assert tried["asked"]["asked"] == []


def test_none_runs_code_or_leaves_anything(tried):
    assert not [name for name, entry in tried.items() if entry.get("canary")]
    assert tried["left"]["paths"] == []
    assert not [entry for entry in tried.values() if entry.get("written")]


def test_time_and_memory_are_bounded(tried):
    assert not [entry for name, entry in tried.items() if entry.get("seconds", 0) > SECONDS]
    assert not [entry for name, entry in tried.items() if "-good" not in name and entry.get("bytes", 0) > BYTES]
