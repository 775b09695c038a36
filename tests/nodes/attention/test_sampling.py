"""I-ERG and C-ERG with whatever a graph can ask of a sampler."""

import comfy.samplers
import comfy.sd
import pytest
import torch
from comfy.patcher_extension import WrappersMP

from benchmarks.tolerance import assert_agree


@pytest.fixture(scope="module")
def erg_model(node, demo):
    return node("EntropyGuidanceERG", model=demo[0], temperature=0.3, layers="40%-60%")[0]


@pytest.fixture(scope="module")
def weak_prompt(node, demo, encode):
    clip = node("EntropyGuidanceCLIP", clip=demo[1], temperature=0.01)[0]
    with torch.inference_mode():
        return encode(clip, "a red circle left of a blue square")


def differ(a, b) -> bool:
    return a.isfinite().all() and b.isfinite().all() and not torch.equal(a, b)


@pytest.mark.parametrize("sampler", comfy.samplers.KSampler.SAMPLERS)
def test_every_sampler(demo, erg_model, prompts, weak_prompt, sample, sampler):
    ordinary = sample(demo[0], prompts[0], weak_prompt, steps=2, sampler=sampler)
    rectified = sample(erg_model, prompts[0], weak_prompt, steps=2, sampler=sampler)
    assert differ(ordinary, rectified)


@pytest.mark.parametrize("scheduler", comfy.samplers.KSampler.SCHEDULERS)
def test_every_scheduler(demo, erg_model, prompts, sample, scheduler):
    assert differ(*(sample(m, *prompts, steps=3, scheduler=scheduler) for m in (demo[0], erg_model)))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_batch_sizes(erg_model, prompts, weak_prompt, sample, batch):
    drawn = sample(erg_model, prompts[0], weak_prompt, batch=batch)
    assert drawn.shape == (batch, 4, 16, 16)
    assert drawn.isfinite().all()
    assert batch == 1 or not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("size", [(16, 24), (8, 16), (17, 19)])
def test_other_picture_sizes(demo, erg_model, prompts, sample, size):
    latent = {"samples": torch.zeros(1, 4, *size)}
    assert differ(*(sample(m, *prompts, latent=latent) for m in (demo[0], erg_model)))


def regional(node, prompts):
    area = node("ConditioningSetArea", conditioning=prompts[0], width=64, height=128, x=0, y=0, strength=1.0)[0]
    return node("ConditioningCombine", conditioning_1=area, conditioning_2=prompts[0])[0]


def masked(node, prompts):
    mask = torch.zeros(1, 128, 128)
    mask[:, :, :64] = 1
    return node("ConditioningSetMask", conditioning=prompts[0], mask=mask, strength=0.8, set_cond_area="default")[0]


def timed(node, prompts):
    first = node("ConditioningSetTimestepRange", conditioning=prompts[0], start=0.0, end=0.5)[0]
    second = node("ConditioningSetTimestepRange", conditioning=prompts[1], start=0.5, end=1.0)[0]
    return node("ConditioningCombine", conditioning_1=first, conditioning_2=second)[0]


def averaged(node, prompts):
    return node(
        "ConditioningAverage", conditioning_to=prompts[0], conditioning_from=prompts[1], conditioning_to_strength=0.7
    )[0]


def longer(node, prompts):
    return node("ConditioningConcat", conditioning_to=prompts[0], conditioning_from=prompts[0])[0]


@pytest.mark.parametrize("change", [regional, masked, timed, averaged, longer])
@pytest.mark.parametrize("side", ["positive", "negative"])
def test_conditioning_with_area_mask_strength_and_time(node, demo, erg_model, prompts, sample, change, side):
    changed = change(node, prompts)
    conditions = (changed, prompts[1]) if side == "positive" else (prompts[0], changed)
    assert differ(*(sample(m, *conditions) for m in (demo[0], erg_model)))


def test_inpainting_keeps_what_the_mask_protects(demo, erg_model, prompts, sample):
    kept = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 64:] = 1
    latent = {"samples": kept, "noise_mask": mask}
    ordinary, rectified = (sample(m, *prompts, latent=latent) for m in (demo[0], erg_model))
    assert differ(ordinary, rectified)
    assert_agree(rectified[..., :7], kept[..., :7])


def test_image_to_image(demo, erg_model, prompts, sample):
    latent = {"samples": torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(6))}
    assert differ(*(sample(m, *prompts, latent=latent, denoise=0.5) for m in (demo[0], erg_model)))


def test_lora_on_the_guided_model(node, demo, erg_model, prompts, sample):
    name = "diffusion_model.single_blocks.0.linear2"
    lora = {f"{name}.lora_up.weight": torch.full((128, 4), 0.1), f"{name}.lora_down.weight": torch.full((4, 640), 0.02)}
    drawn = []
    for first_lora in (True, False):
        model, _ = comfy.sd.load_lora_for_models(demo[0] if first_lora else erg_model, None, lora, 1.0, 0.0)
        if first_lora:
            model = node("EntropyGuidanceERG", model=model, temperature=0.3, layers="40%-60%")[0]
        drawn.append(sample(model, *prompts))
    assert torch.equal(*drawn)
    assert differ(drawn[0], sample(erg_model, *prompts))


def apg(node, model):
    return node("APG", model=model, eta=0.5, norm_threshold=2.0, momentum=-0.5)[0]


def rescale(node, model):
    return node("RescaleCFG", model=model, multiplier=0.7)[0]


def skip_layers(node, model):
    return node(
        "SkipLayerGuidanceDiT", model=model, double_layers="1", single_layers="3,4", start_percent=0.0, end_percent=1.0
    )[0]


def shifted(node, model):
    return node("ModelSamplingFlux", model=model, max_shift=1.15, base_shift=0.5, width=128, height=128)[0]


def cached(node, model):
    return node("EasyCache", model=model, reuse_threshold=0.9, start_percent=0.15, end_percent=0.95, verbose=False)[0]


@pytest.mark.parametrize("companion", [apg, rescale, skip_layers, shifted])
def test_companions_in_both_orders(node, demo, erg_model, prompts, sample, companion):
    after = companion(node, erg_model)
    before = node("EntropyGuidanceERG", model=companion(node, demo[0]), temperature=0.3, layers="40%-60%")[0]
    drawn = sample(after, *prompts)
    assert torch.equal(drawn, sample(before, *prompts))
    assert differ(drawn, sample(erg_model, *prompts))
    assert differ(drawn, sample(companion(node, demo[0]), *prompts))


def test_easy_cache_skips_evaluations_in_both_orders(node, demo, erg_model, prompts, sample):
    after = sample(cached(node, erg_model), *prompts, steps=12)
    before = node("EntropyGuidanceERG", model=cached(node, demo[0]), temperature=0.3, layers="40%-60%")[0]
    assert torch.equal(after, sample(before, *prompts, steps=12))
    assert differ(after, sample(cached(node, demo[0]), *prompts, steps=12))
    assert differ(after, sample(erg_model, *prompts, steps=12))


@pytest.mark.parametrize(
    ("inputs", "cfg", "reason"),
    [
        ({}, 1.0, "had no effect in this sampling: cfg is 1: there is no negative branch. Set scale above 0"),
        (
            {"start_percent": 0.6, "end_percent": 0.62},
            3.0,
            "had no effect in this sampling: no step lies between start_percent = 0.6 and",
        ),
        (
            {"start_percent": 0.6, "end_percent": 0.62, "outside": "no guidance"},
            3.0,
            "No guidance in all of the sampling: no step lies between start_percent = 0.6 and",
        ),
    ],
)
def test_a_sampling_without_effect_is_said(node, demo, prompts, sample, caplog, inputs, cfg, reason):
    sample(node("EntropyGuidanceERG", model=demo[0], **inputs)[0], *prompts, cfg=cfg)
    assert f"Entropy Rectifying Guidance: {reason}".replace(": had", " had") in caplog.text
    caplog.clear()
    sample(node("EntropyGuidanceERG", model=demo[0])[0], *prompts)
    assert "Entropy Rectifying Guidance" not in caplog.text


def test_perturbed_attention_guidance(node, erg_model, prompts, sample):
    """Core's PAG perturbs the middle block of a U-Net; on the demo's network it changes nothing and breaks nothing."""
    model = node("PerturbedAttentionGuidance", model=erg_model, scale=3.0)[0]
    assert_agree(sample(model, *prompts), sample(erg_model, *prompts))


def test_vae_round_trip_and_previews(demo, erg_model, prompts, sample):
    """The demo's VAE and latent format are ComfyUI's: encode, decode, tiled decode and previews work."""
    import latent_preview

    model, _, vae = demo
    picture = vae.decode(sample(erg_model, *prompts))
    assert picture.shape == (1, 128, 128, 3)
    assert vae.encode(picture).shape == (1, 4, 16, 16)
    torch.testing.assert_close(vae.decode_tiled(vae.encode(picture), tile_x=16, tile_y=16).shape, picture.shape)
    previewer = latent_preview.Latent2RGBPreviewer(
        model.model.latent_format.latent_rgb_factors, model.model.latent_format.latent_rgb_factors_bias
    )
    assert previewer.decode_latent_to_preview(vae.encode(picture)).size == (16, 16)


def test_an_evaluation_in_the_positive_branch_alone_is_untouched(erg_model, demo, prompts):
    """Other nodes may ask for single branches, in any order: rows are told by cond_or_uncond, never by place."""
    from benchmarks.one_step import predict

    seen = []

    def spy(executor, x, *args, **kwargs):
        seen.append(list(args[4]["cond_or_uncond"]))
        return executor(x, *args, **kwargs)

    model = erg_model.clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "spy", spy)
    both = predict(model, prompts)
    alone = predict(model, prompts[:1])
    assert_agree(both[0], alone[0])
    assert seen[-1] == [0] and sorted(seen[0]) == [0, 1]
