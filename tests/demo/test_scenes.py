"""The demo's world: every rendered scene is read back exactly, and held-out captions stay held out."""

from dataclasses import replace
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from demo.scene_checker import read_picture
from demo.scenes import (
    COLOURS,
    HELD_OUT,
    IMAGE_SIZE,
    RELATIONS,
    SHAPES,
    Scene,
    Shape,
    relation_holds,
    render,
    sample_scene,
)


@given(st.integers(0, 2**31), st.booleans())
def test_a_rendered_scene_shows_its_caption_and_no_other(seed, held_out):
    rng = Random(seed)
    scene, other = sample_scene(rng, held_out), sample_scene(rng, held_out)
    picture = render(scene)
    assert picture.shape == (3, IMAGE_SIZE, IMAGE_SIZE)
    shown = read_picture(picture)
    assert shown.has_pairs_of(scene)
    assert shown.has_relation_of(scene)
    assert shown.share_of(scene) == 1
    assert shown.has_pairs_of(other) == (scene.pairs == other.pairs)


def test_the_same_seed_gives_the_same_scenes():
    assert [sample_scene(Random(3)) for _ in range(5)] == [sample_scene(Random(3)) for _ in range(5)]


def test_held_out_combinations_never_occur_in_training():
    rng = Random(0)
    training = {sample_scene(rng).pairs for _ in range(5000)}
    assert not training & HELD_OUT
    assert {sample_scene(rng, held_out=True).pairs for _ in range(500)} <= HELD_OUT
    singles = {pair for pairs in training for pair in pairs}
    assert singles == {(colour, kind) for colour in COLOURS for kind in SHAPES}


@pytest.mark.parametrize("relation", RELATIONS)
def test_relations_mean_what_they_say(relation):
    rng = Random(1)
    scenes = [scene for scene in (sample_scene(rng) for _ in range(600)) if scene.relation == relation]
    assert scenes
    for scene in scenes:
        first, second = scene.shapes
        assert {"left of": first.x < second.x, "right of": first.x > second.x,
                "above": first.y < second.y, "below": first.y > second.y}[relation]  # fmt: skip
        assert relation_holds(first, second, relation) and not relation_holds(second, first, relation)
        assert f" {relation} " in scene.caption


def test_a_wrong_picture_is_told_from_a_right_one():
    rng = Random(2)
    scene = next(s for s in iter(lambda: sample_scene(rng), None) if len(s.shapes) == 2)
    picture = render(scene)
    assert not read_picture(torch.full_like(picture, 0.97)).blobs
    assert not read_picture(picture.flip(0)).has_pairs_of(scene)  # other colours
    torn = picture.clone()
    torn[:, ::8] = picture[:, :1, :1]
    assert not read_picture(torn).has_pairs_of(scene)  # no shape is whole


def test_the_share_of_a_caption_that_is_shown():
    """Of "a red circle left of a blue square on a white background": two colours, two kinds, two pairs, a background and a
    relation."""
    red = Shape("red", "circle", "small", 40.0, 64.0, 14.0)
    blue = Shape("blue", "square", "small", 90.0, 64.0, 14.0)
    caption = "a red circle left of a blue square on a white background"
    scene = Scene((red, blue), "white", "left of", caption)

    def shown(*shapes, background="white", of=scene):
        return read_picture(render(Scene(shapes, background, None, ""))).share_of(of)

    assert shown(red, blue) == 1
    assert shown(red, blue, background="gray") == 7 / 8
    assert shown(replace(red, x=90.0), replace(blue, x=40.0)) == 7 / 8  # the wrong way round
    assert shown(red) == 4 / 8  # colour, kind, pair and background
    assert shown(replace(red, colour="blue"), replace(blue, colour="red")) == 5 / 8  # no pair, so no relation either
    assert shown(background="gray") == 0
    assert shown(red, of=Scene((red, red), "white", None, "a red circle and a red circle")) == 3 / 6  # one is not two
    assert shown(red, blue, of=Scene((red,), "gray", None, "a red circle")) == 1  # more is not less
