"""The same seed draws the same picture: run after run, from nodes that were executed anew, and in parts of a batch."""

import pytest
import torch

from benchmarks.tolerance import assert_agree


@pytest.fixture(scope="module")
def guided(node, demo):
    """guided(cads, classified, ...): the demo model with ERG, CADS and classifier guidance, of nodes just executed; the rest are
    ERG's inputs."""
    (classifier,) = node("EntropyGuidanceLoadClassifier")

    def chain(cads=False, classified=False, **erg):
        (model,) = node("EntropyGuidanceERG", model=demo[0], **{"scale": 1.0, **erg})
        if cads:
            (model,) = node("EntropyGuidanceCADS", model=model)
        if not classified:
            return model
        (score,) = node("EntropyGuidanceScore", classifier=classifier, labels="blue")
        return node("EntropyGuidanceApply", model=model, score=score, vae=demo[2], every=1)[0]

    return chain


def part(number: int) -> dict:
    """One picture of a batch, with its noise in the batch."""
    return {"samples": torch.zeros(1, 4, 8, 8), "batch_index": [number]}


@pytest.fixture
def draw(sample, prompts):
    def of(model, latent, seed=5):
        return sample(model, *prompts, seed=seed, steps=2, latent=latent)

    return of


def test_runs_and_executions_are_equal(guided, draw):
    everything = {"cads": True, "classified": True}
    model = guided(**everything)
    first = draw(model, part(0))
    assert torch.equal(draw(model, part(0)), first)
    assert torch.equal(draw(guided(**everything), part(0)), first)
    assert not torch.equal(draw(model, part(0), seed=6), first)


@pytest.mark.parametrize(
    "erg", [{}, {"scale": 0.0}, {"flatness": 0.5}, {"alpha": 0.9, "iterations": 2}, {"rescale": 0.7}], ids=str
)
def test_a_batch_agrees_with_its_parts(guided, draw, erg):
    """Without a classifier, whose gradient enlarges rounding: its own tests hold it in float64."""
    model = guided(**erg)
    together = draw(model, {"samples": torch.zeros(2, 4, 8, 8)})
    for number in range(2):
        assert_agree(draw(model, part(number)), together[number : number + 1])


def test_noise_on_prompts_goes_by_the_place_in_the_batch(guided, draw):
    """As the page on trust says: CADS is what depends on it."""
    model = guided(cads=True)
    together = draw(model, {"samples": torch.zeros(2, 4, 8, 8)})
    assert_agree(draw(model, part(0)), together[:1])
    assert (draw(model, part(1)) - together[1:]).abs().max() > 1e-2
