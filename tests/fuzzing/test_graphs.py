"""A hundred graphs at random: each draws something finite or says clearly why not, and leaves nothing behind.

In a process of its own: it has ComfyUI's server object and folders of its own.
"""

import json
import os
import subprocess
import sys

import pytest

from tools.environment import REPOSITORY

GRAPHS = 100
LENGTHY = {"EntropyGuidanceCalibrate", "EntropyGuidanceCalibrationReport"}
BEGINNING = {"EntropyGuidanceLoadADM", "EntropyGuidanceLoadClassifier", "EntropyGuidanceLoadDemo"}  # all graphs
FEWEST = 15  # that have to draw something, for the others to be no fault of what makes graphs


@pytest.fixture(scope="module")
def found() -> list[dict]:
    """What came of each graph."""
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzzing", "--quick", str(GRAPHS)],
        cwd=REPOSITORY, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert not process.returncode, process.stderr[-3000:]
    return [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]


def test_graphs_draw_or_say_why_not(found):
    failed = [outcome for outcome in found if outcome["kind"] == "failed"]
    assert not failed, json.dumps(failed[:3], indent=1)
    assert len(found) == GRAPHS
    assert sum(outcome["kind"] == "finished" for outcome in found) >= FEWEST


def test_every_node_is_in_some(found):
    """But for those that take seconds: they are in `make fuzz`."""
    drawn = {name for outcome in found for name in outcome["nodes"]}
    ours = json.loads((REPOSITORY / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8")).keys()
    assert len(ours) == 17 and not ours - drawn - LENGTHY - BEGINNING
