"""What judges see: that pictures are harmed as their names say, and that a regression foretells what it can."""

from random import Random

import pytest
import torch

from benchmarks.judges import HARMS, foretold
from demo.scene_checker import read_picture
from demo.scenes import render, sample_scene


def test_a_regression_foretells_what_was_told_and_no_noise():
    told = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(400, 5, generator=torch.Generator().manual_seed(1))
    assert foretold(told, told @ torch.ones(3, 5)) == pytest.approx(1, abs=1e-3)
    assert abs(foretold(told, noise)) < 0.1
    # Of the variance of a sum of two alike, one is told.
    assert foretold(told[:, :1], told[:, :1] + noise[:, :1]) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("harm", [name for name in HARMS if name != "as they are"])
def test_each_harm_changes_pictures_and_keeps_their_range(harm):
    scene = sample_scene(Random(3), held_out=True)
    harmed = HARMS[harm](scene, Random(0))
    assert harmed.shape == (3, 128, 128) and 0 <= harmed.min() and harmed.max() <= 1
    assert not torch.equal(harmed, render(scene))


def test_the_checker_of_scenes_sees_what_is_harmed():
    scene = sample_scene(Random(3), held_out=True)
    seen = {name: read_picture(harm(scene, Random(0))) for name, harm in HARMS.items()}
    assert seen["as they are"].has_pairs_of(scene) and seen["blurred by 1 pixel"].has_pairs_of(scene)
    assert not seen["each shape of two colours"].has_pairs_of(scene)
    assert not seen["without the smaller shape"].has_pairs_of(scene)
    clean = {name: min(blob.overlap for blob in shown.blobs) for name, shown in seen.items()}
    assert clean["each outline between two kinds"] < clean["as they are"]
