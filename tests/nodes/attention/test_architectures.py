"""I-ERG on other networks than the demo's: U-Net (SD1.5, SDXL), MMDiT (SD3, SD3.5), and one that is out of reach."""

import gc
import weakref

import comfy.model_management
import pytest
import torch
from comfy.patcher_extension import WrappersMP

from benchmarks import random_models, small_networks
from benchmarks.one_step import predict
from benchmarks.tolerance import assert_agree


@pytest.fixture(scope="module", params=["SD15", "SD3"])
def model(request):
    return random_models.build(request.param)


def erg(node, model, **inputs):
    return node("EntropyGuidanceERG", model=model, temperature=0.01, **inputs)[0]


def latent_of(model) -> torch.Tensor:
    return random_models.latent(model, 16, batch=2)


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


@pytest.mark.parametrize(
    "inputs", [{}, {"iterations": 2, "alpha": 0.8}, {"attention": "self"}, {"flatness": 0.5}], ids=str
)
def test_frames_that_are_rows(node, inputs):
    """SVD's attention over time has a row for each place of a picture: 256, which three frames do not divide."""
    small, model = small_networks.NETWORKS["SVD_img2vid"], small_networks.build("SVD_img2vid")
    latent = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    guided = erg(node, model, layers="all", **inputs)
    ordinary, together = (predict(m, small.conditions(), latent) for m in (model, guided))
    assert torch.equal(ordinary[0], together[0])
    assert not torch.equal(ordinary[1], together[1])
    if "flatness" not in inputs:  # without the positive branch it is measured elsewhere
        _, negative = small.conditions()
        assert_agree(together[1], predict(guided, (None, negative), latent)[1])


def kinds_of_calls(node, model, kind, tokens, size) -> list[bool]:
    """For each attention of the network, in order, whether ERG scaled its negative queries."""
    seen = []

    def spy(attention, q, k, *args, **kwargs):
        seen.append(q)
        return attention(q, k, *args, **kwargs)

    def queries(model):
        seen.clear()
        model.model_options["transformer_options"]["optimized_attention_override"] = spy
        predict(model, random_models.conditions(tokens), random_models.latent(model, size))
        return list(seen)

    plain = queries(model.clone())
    # A temperature so near to 1 that later layers see nearly the same picture.
    tempered = queries(node("EntropyGuidanceERG", model=model, temperature=1.01, layers="all", attention=kind)[0])
    tempered = tempered[-len(plain) :]  # the first evaluation learns the layers
    return [((a - b).norm() / a.norm()).item() > 0.005 for a, b in zip(plain, tempered)]


@pytest.mark.parametrize(("tokens", "size"), [(8, 16), (16, 16), (64, 16)])
def test_kinds_are_told_at_any_length(node, tokens, size):
    """With as many words as places in the picture, lengths tell nothing."""
    model = random_models.build("SD15")
    assert kinds_of_calls(node, model, "self", tokens, size) == [True, False] * 8
    assert kinds_of_calls(node, model, "cross", tokens, size) == [False, True] * 8


def test_kinds_are_told_beside_token_merging(node):
    """ToMe shortens the queries of self-attention."""
    merged = node("TomePatchModel", model=random_models.build("SD15"), ratio=0.5)[0]
    assert kinds_of_calls(node, merged, "self", 8, 32) == [True, False] * 8


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["SD15", "SD3"])
def test_half_precision(node, architecture, dtype):
    assert changed(node, random_models.build(architecture, dtype), layers="all").isfinite().all()


def test_controlnet(node):
    """A ControlNet acts on both branches, and its outputs, which an evaluation uses up, reach ERG's evaluation too."""
    model = random_models.build("SD15")
    control = random_models.controlnet()
    hint = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(3))

    def controlled(model):
        conditions = node(
            "ControlNetApplyAdvanced", positive=plain[0], negative=plain[1], control_net=control, image=hint,
            strength=1.0, start_percent=0.0, end_percent=1.0,
        )  # fmt: skip
        return predict(model, conditions, latent)

    plain, latent = random_models.conditions(), random_models.latent(model, 16)
    for _ in range(2):  # the second evaluation knows the layers
        ordinary, rectified = controlled(model), controlled(erg(node, model, layers="all"))
        assert torch.equal(ordinary[0], rectified[0])
        assert not torch.equal(ordinary[1], rectified[1])
        uncontrolled = predict(erg(node, model, layers="all"), plain, latent)
        assert not torch.equal(uncontrolled[1], rectified[1])


@pytest.mark.parametrize("companion", ["SelfAttentionGuidance", "PerturbedAttentionGuidance"])
def test_guidance_of_core_that_patches_attention(node, sample, companion):
    model = random_models.build("SD15")

    def drawn(model):
        latent = {"samples": torch.zeros(1, 4, 32, 32)}
        return sample(model, *random_models.conditions(), latent=latent)

    inputs = {"scale": 0.5, "blur_sigma": 2.0} if companion == "SelfAttentionGuidance" else {"scale": 3.0}
    both = drawn(node(companion, model=erg(node, model, layers="all"), **inputs)[0])
    assert both.isfinite().all()
    assert not torch.equal(both, drawn(node(companion, model=model, **inputs)[0]))
    assert not torch.equal(both, drawn(erg(node, model, layers="all")))


def test_an_exception_while_the_layers_are_learnt_leaves_nothing_behind(node):
    model = random_models.build("SD3")
    conditions, latent = random_models.conditions(), latent_of(model)
    before = predict(model, conditions, latent)

    def fail(*args):
        raise InterruptedError

    handle = model.model.diffusion_model.joint_blocks[2].x_block.mlp.register_forward_pre_hook(fail)
    with pytest.raises(InterruptedError):
        predict(erg(node, model, layers="all"), conditions, latent)
    handle.remove()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.model.diffusion_model.modules())
    assert all(map(torch.equal, before, predict(model, conditions, latent)))
    changed(node, model, layers="all")


def test_a_network_without_sections_names_its_layers(node):
    with pytest.raises(ValueError, match="'middle' selects nothing: this model has 4 layers, numbered 0 to 3"):
        changed(node, random_models.build("SD3"), layers="middle")


def test_a_model_without_attention_is_an_error(node):
    model = random_models.without_attention()
    conditions, latent = random_models.conditions(), latent_of(model)
    before = predict(model, conditions, latent)
    with pytest.raises(RuntimeError, match="attention of UNetModel cannot be reached"):
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


def test_a_node_that_skips_blocks_of_such_a_network_leaves_the_numbers_of_the_others(node):
    model = random_models.build("SD3")
    skipping = model.clone()
    skipping.set_model_patch_replace(lambda args, extra: args, "dit", "double_block", 1)
    seen = {i: changed(node, skipping, layers=str(i)) for i in (0, 2, 3)}
    assert len({prediction.sum().item() for prediction in seen.values()}) == 3
    with pytest.raises(RuntimeError, match="another node replaces the selected layers"):
        changed(node, skipping, layers="1")

    # The oracle: the same block taken out of the network's list, and the layer counted in what is left.
    blocks = model.model.diffusion_model.joint_blocks
    block = blocks[1]
    del blocks[1]
    expected = changed(node, model, layers="2")
    blocks.insert(1, block)
    assert_agree(seen[3], expected)


def test_calls_that_come_and_go_without_a_word_are_an_error(node):
    """Another node's wrapper, which runs inside of ERG's, adds a block that nothing tells of."""
    model = random_models.build("SD3")
    blocks = model.model.diffusion_model.joint_blocks

    def one_more(executor, *args, **kwargs):
        blocks.insert(1, blocks[0])
        try:
            return executor(*args, **kwargs)
        finally:
            del blocks[1]

    guided = erg(node, model, layers="3")
    guided.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "test", one_more)
    with pytest.raises(RuntimeError, match="cannot tell the layers of .*MMDIT.*: it made 8 .*, but makes 6 without"):
        predict(guided, random_models.conditions(), latent_of(model))


def test_another_override_is_kept_from_attention_that_comfyui_keeps_from_it(node):
    """ERG reaches PixArt's attention for itself alone: without ERG no other pack's override does."""
    seen = []

    def override(attention, *args, **kwargs):
        seen.append(args)
        return attention(*args, **kwargs) * 0.5

    model = random_models.build("PixArtSigma")
    other = model.clone()
    other.model_options["transformer_options"]["optimized_attention_override"] = override
    assert torch.equal(changed(node, other, layers="all"), changed(node, model, layers="all"))
    assert not seen


def test_a_network_leaves_memory_with_its_model(node):
    """Without a cycle that waits for the garbage collector."""
    model = random_models.build("SD15")
    changed(node, model, layers="all")
    predict(model, random_models.conditions(), latent_of(model))
    network = weakref.ref(model.model.diffusion_model)
    comfy.model_management.unload_all_models()
    gc.collect()
    gc.disable()
    try:
        del model
        assert network() is None
    finally:
        gc.enable()
