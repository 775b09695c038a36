"""The untrained judge: that it says the same everywhere, and tells spoilt pictures from real ones."""

from random import Random

import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from benchmarks.density_coverage import coverage, density, within_balls
from benchmarks.judge import judge
from benchmarks.untrained_judge import FEATURES, features
from demo.scenes import render, sample_scene


def pictures(seed: str, count: int = 48) -> torch.Tensor:
    rng = Random(seed)
    return torch.stack([render(sample_scene(rng, held_out=True)) for _ in range(count)])


def speckled(clean: torch.Tensor) -> torch.Tensor:
    """Squares of 4 pixels, a twentieth of all, in another colour for each picture."""
    random = torch.Generator().manual_seed(0)
    squares = torch.rand(len(clean), 1, 32, 32, generator=random).lt(0.05).float()
    colours = torch.rand(len(clean), 3, 1, 1, generator=random)
    return clean.lerp(colours.expand_as(clean), squares.repeat_interleave(4, 2).repeat_interleave(4, 3))


def test_a_picture_has_the_same_features_beside_any_others_and_nobodys_random_numbers_change():
    drawn, state = pictures("a", 4), torch.get_rng_state()
    found = features(drawn)
    assert found.shape == (4, FEATURES)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.allclose(features(drawn[2:]), found[2:], atol=1e-5)  # other shapes, other kernels


@pytest.mark.parametrize("spoil", [lambda clean: gaussian_blur(clean, 21, 4.0), speckled], ids=["blurred", "speckled"])
def test_spoilt_pictures_are_sparser_and_cover_less_and_more_so_than_to_the_trained_judge(spoil):
    drawn, trained = pictures("b"), judge()

    def left(see) -> tuple[float, float]:
        """Shares of density and coverage."""
        with torch.no_grad():
            real, clean, spoilt = map(see, (pictures("a"), drawn, spoil(drawn)))
        near, near_spoilt = within_balls(real, clean), within_balls(real, spoilt)
        return density(near_spoilt) / density(near), coverage(near_spoilt) / coverage(near)

    found = left(features)
    assert found[0] < 0.8 and found[1] < 0.9
    assert all(ours < theirs for ours, theirs in zip(found, left(trained)))
