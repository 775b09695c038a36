"""What judges see: that pictures are harmed as their names say."""

from random import Random

import pytest
import torch

from benchmarks.judges import HARMS
from demo.scene_checker import read_picture
from demo.scenes import render, sample_scene


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
