"""Interrupt, pressed at any moment of a sampling with all that guides it: what comes after draws what it would have drawn."""

from contextlib import contextmanager
from random import Random

import pytest
import torch
from comfy.model_management import InterruptProcessingException, interrupt_current_processing
from torch.nn.modules.module import register_module_forward_pre_hook

MOMENTS = 8


@contextmanager
def pressed_at(number: int):
    """Within, the given call of any module of PyTorch's presses Interrupt, as ComfyUI's server does; 0 only counts.

    Gives the list of calls. ComfyUI looks whether it was pressed before each of its layers' work.
    """
    calls: list[None] = []

    def press(*_):
        calls.append(None)
        if len(calls) == number:
            interrupt_current_processing()

    handle = register_module_forward_pre_hook(press)
    try:
        yield calls
    finally:
        handle.remove()
        interrupt_current_processing(False)  # pressed behind the last look, it would stop whatever comes next


def drawn_until(moment: int, draw, model) -> torch.Tensor | None:
    """What `draw` gives, None where it was interrupted: behind ComfyUI's last look it is not any more."""
    with pressed_at(moment):
        try:
            return draw(model)
        except InterruptProcessingException:
            return None


@pytest.fixture
def everything(node, demo):
    """The demo model with a weak branch of ERG's own, CADS, a classifier's guidance and a record; and that record."""
    (model,) = node("EntropyGuidanceERG", model=demo[0], scale=0.8)
    (model,) = node("EntropyGuidanceCADS", model=model)
    classifier = node("EntropyGuidanceLoadClassifier", classifier_name="entropy-guidance-demo")[0]
    score = node("EntropyGuidanceScore", classifier=classifier, labels="blue")[0]
    (model,) = node("EntropyGuidanceApply", model=model, score=score, vae=demo[2], every=1)
    return node("EntropyGuidanceRecord", model=model)


def test_at_any_moment(demo, prompts, sample, everything):
    model, record = everything

    def draw(model):
        return sample(model, *prompts, steps=2, latent={"samples": torch.zeros(1, 4, 8, 8)})

    plain = draw(demo[0])
    draw(model)  # learns what is learnt once
    with pressed_at(0) as calls:
        expected = draw(model)
    entropy = record.of(expected).entropy["positive"].values
    found = []
    for moment in Random(0).sample(range(1, len(calls) + 1), MOMENTS):
        found.append(drawn_until(moment, draw, model))
        assert torch.equal(draw(demo[0]), plain)
        assert torch.equal(draw(model), expected)
        assert torch.equal(record.of(expected).entropy["positive"].values, entropy)
    finished = [drawn for drawn in found if drawn is not None]
    assert len(finished) < MOMENTS / 2 and all(torch.equal(drawn, expected) for drawn in finished)


def test_in_the_first_evaluation_of_a_network(node, demo, prompts, sample):
    """In which its layers are learnt, and tried with shared rows."""

    def draw(model):
        return sample(model, prompts[0], prompts[0], steps=1, latent={"samples": torch.zeros(1, 4, 8, 8)})

    def guided():
        fresh = node("EntropyGuidanceLoadDemo")[0]
        return fresh, node("EntropyGuidanceERG", model=fresh, scale=0.8)[0]

    plain = draw(demo[0])
    with pressed_at(0) as calls:
        expected = draw(guided()[1])
    for moment in Random(1).sample(range(1, len(calls) + 1), MOMENTS // 2):
        fresh, model = guided()
        assert drawn_until(moment, draw, model) is None
        assert torch.equal(draw(model), expected)
        assert torch.equal(draw(fresh), plain)
