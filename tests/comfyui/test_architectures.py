"""I-ERG on other networks than the demo's: U-Net (SD1.5, SDXL), MMDiT (SD3, SD3.5), and one that is out of reach."""

import pytest
import torch

from benchmarks import random_models
from benchmarks.one_step import predict


@pytest.fixture(scope="module", params=["SD15", "SD3"])
def model(request):
    return random_models.build(request.param)


def erg(node, model, **inputs):
    return node("EntropyGuidanceERG", model=model, temperature=0.01, **inputs)[0]


def latent_of(model) -> torch.Tensor:
    smallest = 64 if model.model.diffusion_model.__class__.__name__ == "PixArtMS" else 16
    return random_models.latent(model, smallest, batch=2)


def changed(node, model, **inputs) -> torch.Tensor:
    """The negative prediction under ERG, after a look at the positive one."""
    conditions, latent = random_models.conditions(), latent_of(model)
    ordinary, rectified = predict(model, conditions, latent), predict(erg(node, model, **inputs), conditions, latent)
    assert torch.equal(ordinary[0], rectified[0])
    assert not torch.equal(ordinary[1], rectified[1])
    return rectified[1]


def test_positive_branch_keeps_its_bits(node, model):
    changed(node, model, layers="all")


def test_every_layer_can_be_chosen_alone(node, model):
    """Each layer is a different change, and together they are all layers."""
    count = 8 if model.model.model_config.unet_config.get("depth") is None else 4
    predictions = [changed(node, model, layers=str(i)) for i in range(count)]
    assert all(not torch.equal(a, b) for i, a in enumerate(predictions) for b in predictions[:i])
    assert torch.equal(changed(node, model, layers=f"0-{count - 1}"), changed(node, model, layers="all"))
    with pytest.raises(ValueError, match=f"this model has {count} layers"):
        changed(node, model, layers=str(count))


def test_sections_of_a_unet(node):
    model = random_models.build("SD15")
    by_number = {"input": "0-1", "middle": "2-3", "output": "4-7"}
    for section, numbers in by_number.items():
        assert torch.equal(changed(node, model, layers=section), changed(node, model, layers=numbers))


def test_self_and_cross_attention_of_a_unet(node):
    model = random_models.build("SD15")
    kinds = [changed(node, model, layers="all", attention=kind) for kind in ("all", "self", "cross")]
    assert all(not torch.equal(a, b) for i, a in enumerate(kinds) for b in kinds[:i])


def test_a_network_without_sections_names_its_layers(node):
    with pytest.raises(ValueError, match="'middle' selects nothing: this model has 4 layers, numbered 0 to 3"):
        changed(node, random_models.build("SD3"), layers="middle")


def test_a_model_whose_attention_cannot_be_reached_is_an_error(node):
    """PixArt keeps ComfyUI's override from its attention."""
    model = random_models.build("PixArtSigma")
    conditions, latent = random_models.conditions(), latent_of(model)
    before = predict(model, conditions, latent)
    with pytest.raises(RuntimeError, match="attention of PixArtMS cannot be reached"):
        predict(erg(node, model, layers="all"), conditions, latent)
    assert all(map(torch.equal, before, predict(model, conditions, latent)))


def test_layers_of_a_network_without_keys_are_learnt_again_when_its_calls_change(node):
    """SD3 tells no block keys. When its second attention is switched off, the calls of a forward pass are others."""
    model = random_models.build("SD3")
    every = changed(node, model, layers="3")
    blocks = model.model.diffusion_model.joint_blocks
    for block in blocks:
        block.x_block.x_block_self_attn = False
        block.x_block.adaLN_modulation = blocks[2].x_block.adaLN_modulation
    fewer = changed(node, model, layers="3")
    assert torch.equal(fewer, changed(node, model, layers="3"))
    assert torch.equal(fewer, changed(node, model, layers="75%-100%"))
    assert not torch.equal(every, fewer)


def test_a_node_that_skips_blocks_of_such_a_network_is_an_error(node):
    model = random_models.build("SD3")
    changed(node, model, layers="3")
    skipping = model.clone()
    skipping.set_model_patch_replace(lambda args, extra: args, "dit", "double_block", 1)
    with pytest.raises(RuntimeError, match="another node adds or skips some"):
        changed(node, skipping, layers="3")
