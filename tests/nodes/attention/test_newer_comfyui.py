"""What releases after 0.30 do otherwise, each through a stand-in that calls us as their code does."""

from itertools import accumulate, chain

import comfy.ldm.modules.attention
import comfy.ldm.seedvr.model
import pytest
import torch
from comfy.ldm.modules import attention as _attention  # under the name that SeedVR2's own module gives it

from benchmarks import compatibility, random_models, small_networks
from benchmarks.in_process import pack_module
from benchmarks.one_step import predict
from benchmarks.tolerance import assert_agree
from tests.support.newer_attention import ComfyAttention, Container, newer_call_sites, rounding

MODELS = [name for name in compatibility.model_names() if name in small_networks.NETWORKS]


def erg(node, model, **inputs):
    return node("EntropyGuidanceERG", model=model, **{"temperature": 0.01, "layers": "all", **inputs})[0]


@pytest.mark.parametrize("name", MODELS)
def test_containers_around_every_call_site(node, monkeypatch, name):
    """0.40: q, k and v come in containers, heads by keyword. All branches keep the bits that they have without them."""
    small, model = small_networks.NETWORKS[name], small_networks.build(name)
    conditions, latent = small.conditions(), small.latent(small.most)
    guided = erg(node, model)
    before = compatibility.settled(guided, conditions, latent)
    with newer_call_sites(monkeypatch):
        after = compatibility.settled(guided, conditions, latent)
    assert all(map(torch.equal, before, after))
    assert not torch.equal(after[1], predict(model, conditions, latent)[1])


@pytest.mark.parametrize("name", ["SD15", "Flux", "PixArtSigma", "SD3"])
def test_the_attention_that_a_checkpoint_prefers(node, monkeypatch, name):
    """0.40: an override makes ComfyUI forget it, for both branches. With ERG the positive one keeps its bits."""
    small, model = small_networks.NETWORKS[name], small_networks.build(name)
    conditions, latent = small.conditions(), small.latent(small.most)
    usual = predict(model, conditions, latent)
    holder = ComfyAttention(rounding)
    monkeypatch.setattr(comfy.ldm.modules.attention, "ComfyAttention", ComfyAttention, raising=False)
    model.model.diffusion_model.add_module("holder", holder)
    with newer_call_sites(monkeypatch, holder):
        preferred, rectified = predict(model, conditions, latent), predict(erg(node, model), conditions, latent)
        general = predict(erg(node, model, step_size=1.2), conditions, latent)
    assert not torch.equal(preferred[0], usual[0])
    assert torch.equal(rectified[0], preferred[0])
    assert torch.equal(general[0], preferred[0])
    assert not torch.equal(rectified[1], preferred[1])


def test_preferences_that_differ_within_a_network_are_said_once(node, monkeypatch, caplog):
    model = random_models.build("SD3")
    monkeypatch.setattr(comfy.ldm.modules.attention, "ComfyAttention", ComfyAttention, raising=False)
    for i, function in enumerate((rounding, None)):
        model.model.diffusion_model.add_module(f"holder{i}", ComfyAttention(function))
    predict(erg(node, model), random_models.conditions(), random_models.latent(model, 16))
    assert caplog.text.count("is to use several functions by its checkpoint") == 1


def test_another_nodes_override_goes_before_a_preference(node, monkeypatch):
    model, seen = random_models.build("SD15"), []
    monkeypatch.setattr(comfy.ldm.modules.attention, "ComfyAttention", ComfyAttention, raising=False)
    holder = ComfyAttention(rounding)
    model.model.diffusion_model.add_module("holder", holder)

    def override(attention, *args, **kwargs):
        seen.append(attention)
        return attention(*args, **kwargs)

    model.model_options["transformer_options"]["optimized_attention_override"] = override
    latent = random_models.latent(model, 16)
    with newer_call_sites(monkeypatch, holder):
        plain, rectified = (predict(m, random_models.conditions(), latent) for m in (model, erg(node, model)))
    assert torch.equal(plain[0], rectified[0]) and rounding not in seen and len(seen) >= 32


def sorted_windows(video_lengths, text_lengths, windows):
    """As 0.38 packs windows: by length, whichever sample they are of."""
    video = torch.arange(video_lengths.sum())
    text = torch.arange(len(video), len(video) + text_lengths.sum())
    of_windows = zip(torch.split(text, text_lengths.tolist()), windows.tolist())
    pairs = list(zip(torch.split(video, video_lengths.tolist()), chain(*([part] * n for part, n in of_windows))))
    pairs.sort(key=lambda pair: sum(map(len, pair)))
    order = torch.cat(list(chain(*pairs)))
    back = torch.argsort(order)

    def unpack(packed):
        of_video, of_text = packed[back].split([len(video), len(order) - len(video)])
        parts = of_text.split((text_lengths * windows).tolist())
        pooled = [part.reshape(-1, n, *part.shape[1:]).mean(1) for part, n in zip(parts, windows.tolist())]
        return of_video, torch.cat(pooled)

    return lambda video, text: torch.cat([video, text])[order], unpack


def attention_of_equal_lengths(q, k, v, heads, cu_seqlens_q, cu_seqlens_k, skip_reshape, skip_output_reshape):
    """As 0.38 and 0.40 run it: windows of a length in one call, in containers."""
    out, first = torch.empty_like(q), 0
    lengths = [end - start for start, end in zip(cu_seqlens_q, cu_seqlens_q[1:])]
    for last in range(1, len(lengths) + 1):
        if last < len(lengths) and lengths[last] == lengths[first]:
            continue
        tokens = slice(cu_seqlens_q[first], cu_seqlens_q[last])
        batch = [t[tokens].unflatten(0, (last - first, lengths[first])).transpose(1, 2) for t in (q, k, v)]
        containers = map(_attention.AttentionTensorContainer, batch)
        found = _attention.optimized_attention(*containers, heads, skip_reshape=True, skip_output_reshape=True)
        out[tokens] = found.transpose(1, 2).flatten(0, 1)
        first = last
    return out


@pytest.mark.parametrize("batch", [1, 2])
def test_windows_that_are_sorted_and_batched(node, monkeypatch, batch):
    """SeedVR2 since 0.38: windows of several samples in one call, in an order of their lengths."""
    rebinding = pack_module("nodes.attention.rebinding")
    small, module = small_networks.NETWORKS["SeedVR2"], comfy.ldm.seedvr.model
    conditions, latent = small.conditions(), small.latent(batch)
    plain, expected = (predict(m, conditions, latent) for m in _both(node))
    mixed = []

    def lengths_in_order(lengths):
        mixed.append(len(set(lengths)) > 1 and sorted(lengths) != list(lengths))
        return [0, *accumulate(sorted(lengths))]

    monkeypatch.setattr(module, "repeat_concat_idx", sorted_windows)
    monkeypatch.setattr(module, "cumulative_lengths", lengths_in_order)
    monkeypatch.setattr(module, "optimized_var_attention", attention_of_equal_lengths)
    monkeypatch.setattr(comfy.ldm.modules.attention, "AttentionTensorContainer", Container, raising=False)
    rebinding.rebound_function.cache_clear()
    try:
        with newer_call_sites(monkeypatch):
            sorted_plain, sorted_weak = (predict(m, conditions, latent) for m in _both(node))
    finally:
        rebinding.rebound_function.cache_clear()
    assert any(mixed)
    assert torch.equal(sorted_plain[0], sorted_weak[0])
    for found, wanted in ((sorted_plain, plain), (sorted_weak, expected)):
        for branch in range(2):
            assert_agree(found[branch], wanted[branch])
    assert not torch.equal(plain[1], expected[1])


def _both(node):
    model = small_networks.build("SeedVR2")
    return model, erg(node, model)


@pytest.mark.parametrize("option", ["qwen_image21_cache", "animate2_cache"])
def test_what_a_network_keeps_for_a_sampling_is_kept_without_erg(node, option):
    """QwenImage21 keeps the prompt's keys and values, WanAnimate2 those of its poses, from the first evaluation on."""
    model = random_models.build("SD3")
    block = model.model.diffusion_model.joint_blocks[1]
    kept, forward = [], block.forward
    is_off = {"qwen_image21_cache": {"device": "off"}, "animate2_cache": None}[option]

    def caching(*args, transformer_options={}, **kwargs):
        if transformer_options.get(option, "here") == is_off:
            return forward(*args, transformer_options=transformer_options, **kwargs)
        if not kept:
            kept.append(forward(*args, transformer_options=transformer_options, **kwargs))
        return kept[0]

    conditions, latent = random_models.conditions(), random_models.latent(model, 16)
    expected = predict(erg(node, model), conditions, latent)
    caching_model = erg(node, model)
    caching_model.add_object_patch("diffusion_model.joint_blocks.1.forward", caching)
    assert all(map(torch.equal, predict(caching_model, conditions, latent), expected))
    predict(caching_model, conditions, latent, sigma=0.9)
    assert not kept
    assert all(map(torch.equal, predict(caching_model, conditions, latent), expected))


def test_blocks_that_are_replaced_from_some_step_on_are_said(node, demo, prompts, sample, caplog):
    """BlockSparseAttention replaces blocks through patches_replace, and puts its own override in the place of ours."""
    steps = []

    def sparse(args, extra):
        options = dict(args["transformer_options"])
        if options["sigmas"][0] < options["sample_sigmas"][0]:
            options.pop("optimized_attention_override", None)
            steps.append(1)
        return extra["original_block"]({**args, "transformer_options": options})

    model = erg(node, demo[0])
    flux = demo[0].model.diffusion_model
    for kind, blocks in (("double_block", flux.double_blocks), ("single_block", flux.single_blocks)):
        for number in range(len(blocks)):
            model.set_model_patch_replace(sparse, "dit", kind, number)
    sample(model, *prompts, steps=4)
    assert steps
    assert caplog.text.count("In some steps these layers are without ERG: all of them") == 1
    assert "had no effect" not in caplog.text


def test_chosen_layers_that_are_replaced_from_some_step_on_are_said(node, demo, prompts, sample, caplog):
    """Other layers go on to make their calls."""

    def skipped(args, extra):
        options = args["transformer_options"]
        return args if options["sigmas"][0] < options["sample_sigmas"][0] else extra["original_block"](args)

    def drawn(layers):
        caplog.clear()
        model = erg(node, demo[0], layers=layers)
        model.set_model_patch_replace(skipped, "dit", "single_block", 3)
        sample(model, *prompts, steps=3)
        return caplog.text

    number = len(demo[0].model.diffusion_model.double_blocks) + 3
    assert drawn(str(number)).count("In some steps these layers are without ERG: all of them") == 1
    assert drawn(f"2, {number}").count(f"In some steps these layers are without ERG: {number}.") == 1
    assert "without ERG" not in drawn("2")
