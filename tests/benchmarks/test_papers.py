"""The papers' experiment: numbers against what can be counted by hand, shares of processes, what an interrupt leaves."""

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_model

from benchmarks.class_judge import ClassJudge
from benchmarks.papers.__main__ import options_of
from benchmarks.papers.experiment import Course, respaced
from benchmarks.papers.eyes import Eyes
from benchmarks.papers.kept import Batches
from benchmarks.papers.measures import Reference, Ruler, published_reference
from benchmarks.papers.ranks import Ranks
from demo.classes import world
from tools.environment import REPOSITORY

WEIGHTS = "demo/weights/classes"  # files, which need not lie in ComfyUI's folders
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """A file of a judge with random weights."""
    path = tmp_path_factory.mktemp("judge") / "judge.safetensors"
    torch.manual_seed(0)
    save_model(ClassJudge(), str(path))
    return path


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_two_processes_find_what_one_finds(tmp_path, judge):
    pictures = world.draw(torch.arange(12), torch.Generator().manual_seed(3)).movedim(1, -1)
    reference = npz(tmp_path / "reference.npz", arr_0=(pictures * 255).byte().numpy())
    found = {}
    for name, launcher in (("one", ()), ("two", TORCHRUN)):
        command = (sys.executable, "-m", *launcher, "benchmarks.papers", "--twin", "--eyes", judge, "--diffusion", f"{WEIGHTS}/diffusion.safetensors", "--reference", reference,
                   "--samples", "7", "--batch", "2", "--steps", "3", "--classifier", f"{WEIGHTS}/classifier",
                   "--methods", "no guidance", "Jensen-Shannon", "--folder", tmp_path / name)  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # torchrun's default; more threads add up in another order
        subprocess.run([*map(str, command)], check=True, cwd=REPOSITORY, env=environment, capture_output=True)
        files = (tmp_path / name).glob("*/*.safetensors")
        features = {str(file.relative_to(tmp_path / name)): file.read_bytes() for file in files}
        found[name] = json.loads((tmp_path / name / "results.json").read_text())["rows"], features
    rows, features = found["one"]
    assert found["two"] == found["one"]
    assert len(features) == 6 + 4 + 4 and len({*features.values()}) == len(features)
    assert rows["no guidance"]["FID"] != rows["Jensen-Shannon"]["FID"] > 0


class Counter:
    """Draws pictures that tell their numbers, until it has drawn enough."""

    def __init__(self, enough: int = 100):
        self.drawn, self.enough = [], enough

    def __call__(self, number: int, count: int) -> torch.Tensor:
        if len(self.drawn) == self.enough:
            raise KeyboardInterrupt
        self.drawn.append(number)
        return torch.full((count, 3, 8, 8), number, dtype=torch.uint8)


def first_pixel(pictures: torch.Tensor) -> torch.Tensor:
    return pictures[:, 0, 0, :1]


def test_an_interrupted_run_goes_on_and_so_does_one_for_more(tmp_path):
    def draw(count: int, counter: Counter) -> list[float]:
        return Batches(count, 3, counter, tmp_path).features(first_pixel, Ranks()).flatten().tolist()

    with pytest.raises(KeyboardInterrupt):
        draw(8, Counter(enough=2))
    (rest := Counter()), (more := Counter())
    assert draw(8, rest) == [0, 0, 0, 1, 1, 1, 2, 2] and rest.drawn == [2]
    assert draw(10, more) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3] and more.drawn == [2, 3]
    assert (tmp_path / "first.png").is_file()


def test_a_batch_belongs_to_one_process():
    shares = [[*Ranks(rank, 3).own(8)] for rank in range(3)]
    assert sorted(sum(shares, [])) == [*range(8)]


def reference_of(statistics=None) -> Reference:
    return Reference(torch.zeros(4, 3, 2, 2, dtype=torch.uint8), "", statistics)


def test_precision_and_recall_are_counted_on_a_line():
    real, drawn = (F.pad(torch.tensor(places)[:, None], (0, 1)) for places in ([0.0, 1, 2, 3], [0.5, 10, 11, 12]))
    found = Ruler(reference_of(), real)(drawn)  # the real ones' third neighbours are 3, 2, 2 and 3 away
    assert (found["precision"], found["recall"]) == (0.25, 1.0)


def test_fid_is_that_of_normal_distributions():
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).repeat(100, 1)
    drawn = torch.tensor([3.0, 0.0]) + torch.tensor([2.0, 1.0]) * signs
    unbiased = len(drawn) / (len(drawn) - 1)
    statistics = {"mu": np.zeros(2), "sigma": unbiased * np.diag([1.0, 9.0])}
    found = Ruler(reference_of(statistics), drawn)(drawn)
    assert found["FID"] == pytest.approx(3**2 + unbiased * ((2 - 1) ** 2 + (3 - 1) ** 2))
    assert Ruler(reference_of(), drawn)(drawn)["FID"] == pytest.approx(0, abs=1e-9)


def test_a_published_reference_is_read(tmp_path):
    pictures, mu = np.arange(96, dtype=np.uint8).reshape(4, 2, 4, 3), np.ones(5, np.float32)
    found = published_reference(npz(tmp_path / "r.npz", arr_0=pictures, mu=mu, sigma=np.eye(5), mu_s=mu))
    assert found.size == (2, 4) and found.pictures[1, 2, 0, 3] == pictures[1, 0, 3, 2]
    assert found.statistics["mu"].dtype == np.float64 and found.statistics["sigma"].shape == (5, 5)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.ones(5), "sigma": np.eye(5)}, "holds mu, sigma"),
        ({"arr_0": np.zeros((2, 4, 4, 3), np.uint8), "mu": np.ones(5)}, "holds arr_0, mu"),
        ({"arr_0": np.zeros((8, 4, 4, 3))}, r"float64 \[8, 4, 4, 3\]"),
        ({"arr_0": np.zeros((8, 3, 4, 4), np.uint8)}, r"uint8 \[8, 3, 4, 4\]"),
        ({"arr_0": np.zeros((3, 4, 4, 3), np.uint8)}, "N more than 3"),
        ({"arr_0": np.array([object()])}, "cannot be read"),
    ],
)
def test_another_file_is_no_reference(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=f"reference: .*{message}"):
        published_reference(npz(tmp_path / "r.npz", **arrays))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not an npz"])
def test_a_damaged_reference_is_named(tmp_path, content):
    (tmp_path / "r.npz").write_bytes(content)
    with pytest.raises(ValueError, match="reference: .*r.npz cannot be read"):
        published_reference(tmp_path / "r.npz")


def test_statistics_of_other_features_are_refused():
    with pytest.raises(ValueError, match="these pictures 1 features"):
        Ruler(reference_of({"mu": np.zeros(2), "sigma": np.eye(2)}), torch.zeros(4, 1))


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_of_weights_is_not_executed(tmp_path):
    (tmp_path / "weights.pth").write_bytes(pickle.dumps({"fc.weight": Harmful(tmp_path / "harm")}))
    with pytest.raises(ValueError, match="eyes: .* is not a state dict"):
        Eyes(False, tmp_path / "weights.pth")
    assert not (tmp_path / "harm").exists()


def test_steps_are_respaced_over_those_of_the_training():
    assert respaced(4).tolist() == [999, 666, 333, 0]
    steps = respaced(250)
    assert len(steps.unique()) == 250 and {*(steps[:-1] - steps[1:]).tolist()} == {4, 5}
    for wrong in (1, 1001):
        with pytest.raises(ValueError, match=f"steps = {wrong}"):
            respaced(wrong)


def test_a_noise_aware_classifier_guides_without_the_sine():
    course = Course(batch=1, steps=2, seed=0, gamma=0.3, scale=None)
    assert course.guidance("Dhariwal") == {"scale": 0.5, "gamma": 0.0, "tilt": 0.0}
    assert course.guidance("tilted") == {"scale": 1.0, "gamma": 0.3, "tilt": -0.2}
    assert Course(1, 2, 0, 0.3, 2.0).guidance("no guidance")["scale"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--samples 3 --twin", "--samples 3: it must be 4 or more"),
        ("--diffusion a.pt --classifier b.pth", "name --reference"),
        ("--diffusion a.pt --classifier b.pth --reference c.npz", "--reference c.npz: there is no such file"),
        ("--classifier b.pth", "name --diffusion"),
        ("--twin --methods JS", "invalid choice: 'JS'"),
    ],
)
def test_a_command_that_says_too_little_is_refused(capsys, arguments, message):
    with pytest.raises(SystemExit):
        options_of(arguments.split())
    assert message in capsys.readouterr().err
