"""Benchmarks of classifier guidance on latents: what is measured, and what is kept."""

from concurrent.futures import Future

import numpy as np
import pytest
import torch

from benchmarks import guided_bench, guided_measures, tables
from benchmarks.guided_bench import BATCH, CLEAN, NOISE_AWARE, TEST, TRIAL, Job, Setting, run, seen
from demo.train_classifier import CLASSES


@pytest.fixture(scope="module")
def real():
    return guided_measures.real(48)


def test_real_pictures_are_as_real_ones_are(real):
    found = guided_measures.measures(real, real)(np.arange(48))
    assert found["accuracy"] == found["clean"] == found["precision"] == found["recall"] == 1
    assert found["Fréchet"] == pytest.approx(0, abs=0.01) and found["joint"] == pytest.approx(0, abs=0.01)


def test_another_colour_is_further_off_together_with_it(real):
    other = guided_measures.Seen(real.features, real.asked.roll(1), real.shown, real.shapes, real.clean)
    found = guided_measures.measures(real, other)(np.arange(48))
    assert found["accuracy"] == (other.asked == other.shown).double().mean()
    assert found["Fréchet"] == pytest.approx(0, abs=0.01) and found["joint"] > 1


def test_a_part_has_the_measures_of_that_part(real):
    half = np.arange(24)
    whole, alone = guided_measures.measures(real, real), guided_measures.measures(real, real[half])
    assert whole(half) == pytest.approx(alone(half), abs=1e-6)


class Here:
    """In the place of a pool of processes."""

    def __init__(self):
        self.done = 0

    def submit(self, work):
        self.done += 1
        future = Future()
        future.set_result(work())
        return future


def test_what_was_drawn_is_not_drawn_again(monkeypatch, tmp_path):
    monkeypatch.setattr(guided_bench, "FOLDER", tmp_path)
    monkeypatch.setattr(
        guided_bench, "draw", lambda setting, labels, seed: torch.full((BATCH, 3, 128, 128), 0.1 * setting.scale)
    )
    settings, workers = [Setting(1.0), Setting(2.0)], Here()
    for batches, drawn in ((1, 2), (2, 4), (2, 4)):
        run(settings, TEST, batches, workers, "a test")
        assert workers.done == drawn
    found = seen(settings[1], TEST, 2)
    assert len(found.features) == 2 * BATCH and found.asked[:8].tolist() == [i % len(CLASSES) for i in range(8)]
    assert torch.equal(found.features[0], found.features[-1]) and not found.shapes.any()


def test_kept_files_are_told_apart_by_all_that_they_come_from(monkeypatch):
    jobs = [
        Job(Setting(0.1), TEST, 0), Job(Setting(0.1), TRIAL, 0), Job(Setting(0.1), TEST, 1), Job(Setting(0.2), TEST, 0),
        Job(Setting(0.1, guidance={"tilt": -0.2}), TEST, 0), Job(Setting(0.1, classifier=NOISE_AWARE), TEST, 0),
    ]  # fmt: skip
    files = {job.file for job in jobs}
    monkeypatch.setattr(guided_bench, "fingerprint", lambda classifier: "others")
    assert len(files) == 6 and Job(Setting(0.1, classifier=CLEAN), TEST, 0).file not in files


def test_cells_say_how_far_a_row_is_from_the_baseline():
    forms = dict.fromkeys(tables.GUIDED, {"value": 0.5, "above": 0.1, "error above": 0.05})
    first, *_ = tables._guided_cells(forms)
    assert first == "0.50 (+0.10 ± 0.10)"
    baseline = dict.fromkeys(tables.GUIDED, {"value": 0.5, "above": 0.0, "error above": 0.0})
    assert tables._guided_cells(baseline)[0] == "0.50"
