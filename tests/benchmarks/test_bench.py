"""`make bench`: the order of the benchmarks, what an interrupt leaves, and a quick one as a whole."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks import __main__ as bench
from benchmarks.class_conditional import BATCH, FULL, METHODS, QUICK_METHODS, Job
from benchmarks.results import DOCS, QUICK
from tools.environment import REPOSITORY

# Compiled, the few pictures of a quick run are drawn minutes later.
QUICKLY = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}


def docs() -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in DOCS.glob("**/*") if file.is_file()}


def test_class_conditional_quick_leaves_the_documents_alone():
    before, results = docs(), QUICK / "class_conditional.json"
    results.unlink(missing_ok=True)
    command = (sys.executable, "-m", "benchmarks", "--quick", "--only", "class_conditional")
    subprocess.run(command, check=True, cwd=REPOSITORY, env=QUICKLY, capture_output=True)
    assert docs() == before
    found = json.loads(results.read_text(encoding="utf-8"))
    assert found["command"] == "python -m benchmarks.class_conditional --quick" and found["pictures"] == BATCH
    assert found["rows"].keys() == {*QUICK_METHODS, "real pictures"}
    for row in found["rows"].values():
        assert all(measure.keys() == {"value", "low", "high"} for measure in row.values())
    distances = {name: found["rows"][name]["Fréchet"]["value"] for name in QUICK_METHODS}
    assert len({*distances.values()}) == len(distances)
    assert found["Fréchet, relative"]["none"]["ours"] == distances["none"] / distances["CFG"]


def test_class_sensitivity_quick_compares_each_node_with_its_base():
    command = (sys.executable, "-m", "benchmarks.class_sensitivity", "--quick")
    subprocess.run(command, check=True, cwd=REPOSITORY, env=QUICKLY, capture_output=True)
    found = json.loads((QUICK / "class_sensitivity.json").read_text(encoding="utf-8"))
    assert found["none"].keys() == found["rows"].keys() == found["defaults"].keys()
    for node, inputs in found["rows"].items():
        none = found["none"][node]["Fréchet"]["value"]
        (points,) = inputs.values()
        distances = [row["Fréchet"] for row in points.values()]
        assert len({none, *(distance["value"] for distance in distances)}) == 3
        base = found["base"][node]["Fréchet"]
        assert base["above"] == base["error above"] == 0
        assert all(distance["above"] == distance["value"] - base["value"] for distance in distances)
    assert (QUICK / "inputs-of-classifiers.png").stat().st_size > 5_000


def test_calibration_inputs_quick_trains_for_each_value():
    command = (sys.executable, "-m", "benchmarks.calibration_inputs", "--quick")
    subprocess.run(command, check=True, cwd=REPOSITORY, env=QUICKLY, capture_output=True)
    found = json.loads((QUICK / "calibration_inputs.json").read_text(encoding="utf-8"))
    measures = [found["as it came"], *found["rows"]["steps"].values()]
    assert len({row["confidence"]["value"] for row in measures}) == len(measures) == 3
    for row in found["rows"]["steps"].values():
        assert all(measure["low"] == measure["value"] == measure["high"] for measure in row.values())  # of one seed
    assert (QUICK / "inputs-of-calibration.png").stat().st_size > 5_000


def test_batches_of_full_runs_keep_their_names():
    """What was drawn in hours is found again."""
    file = Job(METHODS["none"].settings[0], 2, 7, FULL).file
    assert file.relative_to(FULL.folder).as_posix() == "d967fa9b74128088-2/0007.safetensors"


def test_an_interrupted_run_goes_on_where_it_stopped(monkeypatch, tmp_path):
    ran: list[str] = []

    def run(name: str, *options: str) -> None:
        ran.append(name)
        if len(ran) == 3:
            raise SystemExit("interrupted")

    monkeypatch.setattr(bench, "FINISHED", tmp_path / "finished.txt")
    monkeypatch.setattr(bench, "run", run)
    monkeypatch.setattr(sys, "argv", ["benchmarks"])
    with pytest.raises(SystemExit):
        bench.main()
    bench.main()
    possible = bench.unfinished()  # all of them anew
    assert {*bench.ALL} - {*possible} <= bench.OF_A_TRAINING.keys()
    assert ran == [*possible[:3], *possible[2:], "numbers", "report"]


def test_what_is_of_a_training_is_left_out_without_its_weights(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "DEV", tmp_path)
    monkeypatch.setattr(bench, "FINISHED", tmp_path / "finished.txt")
    assert bench.unfinished() == [name for name in bench.ALL if name != "gentle_cfg"]
    assert "gentle_cfg is left out: `python -m demo.train_diffusion --until 2000`" in capsys.readouterr().out
    (tmp_path / "training" / "step-2000").mkdir(parents=True)
    assert bench.unfinished() == [*bench.ALL]


def test_every_benchmark_of_the_run_is_a_command():
    assert set(bench.QUICK) <= set(bench.ALL)
    for name in (*bench.ALL, "numbers", "report"):
        file, package = (REPOSITORY / "benchmarks" / place for place in (f"{name}.py", f"{name}/__main__.py"))
        source = (file if file.exists() else package).read_text(encoding="utf-8")
        assert 'if __name__ == "__main__":' in source
        assert ('"--quick"' in source or "results.main(" in source) == (name in bench.QUICK), name
