"""The papers' experiment in this process: which files fit each other, and what a batch depends on."""

import pytest
import torch

from benchmarks.papers.experiment import Course, Experiment

TWIN = "entropy-guidance-demo-classes"
COURSE = Course(batch=4, steps=2, seed=0, gamma=0.3, scale=None)


@pytest.fixture(scope="module")
def experiment(node):
    return Experiment(COURSE, (32, 32), TWIN, TWIN, None)


def test_methods_differ_in_what_they_draw(experiment):
    assert "Dhariwal" not in experiment.methods() and "tilted" in experiment.methods()
    unguided, guided = (experiment.draw(method, 0, 4) for method in ("no guidance", "ma2023"))
    assert unguided.dtype == torch.uint8 and unguided.shape == (4, 3, 32, 32)
    assert not torch.equal(unguided, guided)
    assert experiment.settings("ma2023") != experiment.settings("Jensen-Shannon")
    assert "classifier" not in experiment.settings("no guidance")  # and so the row serves beside any


def test_a_batch_depends_on_its_number_alone(experiment):
    first, second = (experiment.draw("no guidance", number, 4) for number in (0, 1))
    assert torch.equal(experiment.draw("no guidance", 0, 4), first) and not torch.equal(first, second)


def test_a_reference_of_another_size_is_refused():
    with pytest.raises(ValueError, match="its pictures are 64 × 32, and a/128x128_diffusion.pt draws others"):
        Experiment(COURSE, (32, 64), "a/128x128_diffusion.pt", TWIN, None)


@pytest.mark.parametrize(
    ("classifier", "noise_aware", "message"),
    [
        ("entropy-guidance-demo", None, "knows 6 classes, and the model 18"),
        (None, TWIN, f"{TWIN} is not for --noise-aware, but for --classifier"),
        ("nowhere.pth", None, "classifier_name = 'nowhere.pth'"),
    ],
)
def test_a_classifier_that_does_not_fit_is_refused(node, classifier, noise_aware, message):
    with pytest.raises(ValueError, match=message):
        Experiment(COURSE, (32, 32), TWIN, classifier, noise_aware)
