"""ERG beside whatever else of ComfyUI changes guidance, attention, conditions or weights."""

import comfy.hooks
import comfy.nested_tensor
import pytest
import torch
from comfy.patcher_extension import WrappersMP

from benchmarks import random_models, small_networks
from benchmarks.one_step import predict
from benchmarks.tolerance import assert_agree


def erg(node, model, **inputs):
    return node("EntropyGuidanceERG", model=model, **{"temperature": 0.1, "layers": "all", **inputs})[0]


def differ(*drawn) -> bool:
    """All are finite and no two alike."""
    finite = all(d.isfinite().all() for d in drawn)
    return finite and all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


COMPANIONS = {
    "APG": {"eta": 0.5, "norm_threshold": 5.0, "momentum": -0.3},
    "RescaleCFG": {"multiplier": 0.7},
    "CFGZeroStar": {},
    "CFGNorm": {"strength": 0.8},
    "TCFG": {},
    "Mahiro": {},
    "NAGuidance": {},
    "SkipLayerGuidanceDiT": {"double_layers": "1", "single_layers": "3,4", "start_percent": 0.0, "end_percent": 1.0},
    "SkipLayerGuidanceDiTSimple": {"double_layers": "1", "single_layers": "3,4"},
    "EasyCache": {"reuse_threshold": 0.9},
    "LazyCache": {"reuse_threshold": 0.9},
    "ModelSamplingFlux": {"max_shift": 1.15, "base_shift": 0.5, "width": 128, "height": 128},
    "EntropyGuidanceCADS": {"tau1": 0.1, "tau2": 0.9},
}


@pytest.mark.parametrize("companion", COMPANIONS)
def test_both_orders_are_one(node, demo, prompts, sample, companion):
    """The order of the two nodes does not matter, and each has its effect."""

    def with_companion(model):
        return node(companion, model=model, **COMPANIONS[companion])[0]

    # Beside the layers that skip layer guidance leaves out.
    choice = {"layers": "0,2-4,7-11"}
    models = [with_companion(erg(node, demo[0], **choice)), erg(node, with_companion(demo[0]), **choice)]
    after, before = (sample(model, *prompts, steps=8) for model in models)
    assert torch.equal(after, before)
    assert differ(
        after, *(sample(m, *prompts, steps=8) for m in (with_companion(demo[0]), erg(node, demo[0], **choice)))
    )


@pytest.mark.parametrize("companion", ["PerturbedAttentionGuidance", "SelfAttentionGuidance", "NAGuidance"])
def test_both_orders_are_one_on_a_unet(node, sample, companion):
    inputs = {"PerturbedAttentionGuidance": {"scale": 3.0}, "SelfAttentionGuidance": {"scale": 0.5, "blur_sigma": 2.0}}
    model, latent = random_models.build("SD15"), {"samples": torch.zeros(1, 4, 32, 32)}

    def draw(model):
        return sample(model, *random_models.conditions(), latent=latent)

    def with_companion(model):
        return node(companion, model=model, **inputs.get(companion, {}))[0]

    after, before = draw(with_companion(erg(node, model))), draw(erg(node, with_companion(model)))
    assert_agree(after, before)
    assert differ(after, draw(with_companion(model)), draw(erg(node, model)))


def test_normalised_attention_guidance_mixes_the_weak_branch_into_the_positive_one(node):
    """NAG moves the positive branch away from what attention says in the negative branch: from ERG's, then."""
    model, latent = random_models.build("SD15"), random_models.latent(random_models.build("SD15"), 16)
    nag = node("NAGuidance", model=model)[0]
    plain, rectified = (predict(m, random_models.conditions(), latent) for m in (nag, erg(node, nag)))
    assert not torch.equal(plain[0], rectified[0])
    assert torch.equal(predict(erg(node, model), random_models.conditions(), latent)[0], predict(model, random_models.conditions(), latent)[0])  # fmt: skip


def test_skip_layer_guidance_on_a_network_that_tells_no_blocks(node, sample):
    model, latent = random_models.build("SD3"), {"samples": torch.zeros(1, 16, 16, 16)}
    inputs = {"layers": "1", "scale": 3.0, "start_percent": 0.0, "end_percent": 1.0}

    def draw(model):
        return sample(model, *random_models.conditions(), latent=latent)

    skipping = node("SkipLayerGuidanceSD3", model=model, **inputs)[0]
    assert differ(draw(erg(node, skipping)), draw(skipping), draw(erg(node, model)))
    simple = node("SkipLayerGuidanceDiTSimple", model=model, double_layers="1", single_layers="")[0]
    assert differ(draw(erg(node, simple)), draw(simple), draw(erg(node, model)))


def test_differential_diffusion(node, demo, prompts, sample):
    latent = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    mask = torch.linspace(0, 1, 16).expand(1, 1, 16, 16)

    def draw(model):
        inpaint = {"samples": latent, "noise_mask": mask}
        return sample(node("DifferentialDiffusion", model=model)[0], *prompts, latent=inpaint, steps=8)

    drawn = draw(erg(node, demo[0]))
    assert differ(drawn, draw(demo[0]))
    assert_agree(drawn[..., 0], latent[..., 0])


def lora_hooks(model, strength: float):
    """A hook that adds a LoRA to one block of the demo's network."""
    name = "diffusion_model.single_blocks.3.linear2"
    out_width, in_width = model.model.diffusion_model.single_blocks[3].linear2.weight.shape
    lora = {
        f"{name}.lora_up.weight": torch.full((out_width, 2), 0.1),
        f"{name}.lora_down.weight": torch.full((2, in_width), 0.1),
    }
    return comfy.hooks.create_hook_lora(lora=lora, strength_model=strength, strength_clip=0.0)


@pytest.mark.parametrize("side", [0, 1])
def test_lora_hooks_and_their_schedules(demo, node, prompts, sample, side):
    """A LoRA on one of the two conditions, and one that comes in halfway."""

    def draw(model, strength, begin=None):
        hooks = lora_hooks(demo[0], strength)
        if begin is not None:
            schedule = comfy.hooks.HookKeyframeGroup()
            schedule.add(comfy.hooks.HookKeyframe(strength=0.0, start_percent=0.0))
            schedule.add(comfy.hooks.HookKeyframe(strength=1.0, start_percent=begin))
            hooks.set_keyframes_on_hooks(schedule)
        conditions = list(prompts)
        conditions[side] = comfy.hooks.set_hooks_for_conditioning(conditions[side], hooks)
        return sample(model, *conditions, steps=4)

    model = erg(node, demo[0])
    drawn = draw(model, 1.0)
    assert differ(drawn, draw(demo[0], 1.0), draw(model, 1.0, begin=0.5), sample(model, *prompts, steps=4))
    assert_agree(draw(model, 0.0), sample(model, *prompts, steps=4))


def test_context_windows(node, sample):
    """A video in overlapping windows of frames: each window has its own evaluations, and ERG acts in each."""
    small, model = small_networks.NETWORKS["WAN21_T2V"], small_networks.build("WAN21_T2V")
    latent = {"samples": torch.zeros(1, 16, 6, 8, 8)}

    def draw(model):
        windows = node(
            "ContextWindowsManual", model=model, context_length=3, context_overlap=1, dim=2,
            context_schedule="standard_static", fuse_method="pyramid",
        )[0]  # fmt: skip
        return sample(windows, *small.conditions(), latent=latent, steps=2)

    windowed = draw(erg(node, model))
    assert differ(windowed, draw(model), sample(erg(node, model), *small.conditions(), latent=latent, steps=2))


@pytest.mark.parametrize("name", ["LTXAV", "StableAudio", "HunyuanVideo", "WAN21_T2V"])
def test_video_and_sound_are_sampled(node, sample, name):
    small, model = small_networks.NETWORKS[name], small_networks.build(name)
    samples = small.latent()
    samples = samples if samples.is_nested else torch.zeros_like(samples)

    def draw(model):
        drawn = sample(model, *small.conditions(), latent={"samples": samples}, steps=2)
        return drawn.unbind() if drawn.is_nested else [drawn]

    for plain, rectified in zip(draw(model), draw(erg(node, model)), strict=True):
        assert differ(plain, rectified)


@pytest.mark.parametrize("name", ["attention_basic", "attention_split", "attention_sub_quad", "attention_pytorch"])
def test_every_attention_of_comfyui(node, demo, prompts, name):
    """In the way in which other packs choose an attention: by an override, which stays in force under ERG."""
    import comfy.ldm.modules.attention

    backend, used = getattr(comfy.ldm.modules.attention, name), []

    def override(attention, *args, **kwargs):
        used.append(name)
        return backend(*args, **kwargs)

    model = demo[0].clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = override
    ordinary, rectified = predict(model, prompts), predict(erg(node, model), prompts)
    assert torch.equal(ordinary[0], rectified[0]) and len(used) >= 24
    assert_agree(rectified[1], predict(erg(node, demo[0]), prompts)[1])


def test_a_wrapper_of_another_pack_may_split_the_batch(node, demo, prompts):
    """Row by row: what ERG does never depends on how an evaluation is cut."""

    def halves(executor, x, t, c_concat, c_crossattn, control, transformer_options, **conditions):
        results = []
        for i, chunk in enumerate(transformer_options["cond_or_uncond"]):
            rows = slice(2 * i, 2 * i + 2)
            options = {**transformer_options, "cond_or_uncond": [chunk]}
            extra = {k: v[rows] if torch.is_tensor(v) and len(v) == len(x) else v for k, v in conditions.items()}
            results.append(executor(x[rows], t[rows], c_concat, c_crossattn[rows], control, options, **extra))
        return torch.cat(results)

    whole = predict(erg(node, demo[0]), prompts)
    cut = demo[0].clone()
    cut.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "test", halves)
    for a, b in zip(whole, predict(erg(node, cut), prompts), strict=True):
        assert_agree(a, b)
