"""ERG with a weak branch of its own: any cfg, guider and sampler, whatever a graph asks of the positive condition."""

import comfy.context_windows
import comfy.hooks
import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import in_process, random_models, small_networks
from benchmarks.tolerance import agree, assert_agree
from tests.nodes.attention.test_composition import COMPANIONS, lora_hooks
from tests.nodes.attention.test_execution_modes import on_two_devices
from tests.nodes.attention.test_sampling import averaged, longer, masked, regional, timed
from tests.nodes.sampling.test_guider import GuiderWithoutPositive, conditions, draw, dual_cfg, our_guider, perp_neg  # noqa: F401

CHANGE = {"temperature": 0.05, "layers": "40%-60%"}


def erg(node, model, **inputs):
    return node("EntropyGuidanceERG", model=model, **CHANGE, **inputs)[0]


def own(node, model, scale=1.0, **inputs):
    return erg(node, model, scale=scale, **inputs)


@pytest.fixture
def expected(node, demo, draw):  # noqa: F811
    """The oracle: what the ERG Guider draws with the positive condition as the weak one, too."""

    def by_guider(positive, negative, scale, cfg, model=None):
        model = erg(node, demo[0] if model is None else model)
        inputs = {"scale": 1 + scale, "negative_scale": cfg}
        return draw(our_guider(node, model, (positive, positive, negative), **inputs), steps=3)

    return by_guider


@pytest.fixture
def drawn(node, demo, draw):  # noqa: F811
    def by_cfg(model, positive, negative, cfg):
        guider = node("CFGGuider", model=model, positive=positive, negative=negative, cfg=cfg)[0]
        return draw(guider, steps=3)

    return by_cfg


@pytest.mark.parametrize("cfg", [1.0, 2.5])
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_the_formula(node, demo, prompts, drawn, expected, cfg, scale):
    guided = drawn(own(node, demo[0], scale), *prompts, cfg)
    assert_agree(guided, expected(*prompts, scale, cfg))
    assert not agree(guided, drawn(demo[0], *prompts, cfg))


@pytest.mark.parametrize("change", [regional, masked, timed, averaged, longer])
@pytest.mark.parametrize("cfg", [1.0, 2.5])
def test_conditioning_with_area_mask_strength_and_time(node, demo, prompts, drawn, expected, change, cfg):
    positive = change(node, prompts)
    assert_agree(drawn(own(node, demo[0]), positive, prompts[1], cfg), expected(positive, prompts[1], 1.0, cfg))


@pytest.mark.parametrize("cfg", [1.0, 2.5])
def test_lora_hooks(node, demo, prompts, drawn, expected, cfg):
    positive = comfy.hooks.set_hooks_for_conditioning(prompts[0], lora_hooks(demo[0], 1.0))
    guided = drawn(own(node, demo[0]), positive, prompts[1], cfg)
    assert_agree(guided, expected(positive, prompts[1], 1.0, cfg))
    assert not agree(guided, drawn(own(node, demo[0]), *prompts, cfg))


@pytest.mark.parametrize("cfg", [1.0, 2.5])
def test_a_controlnet(node, sample, cfg):
    """Its outputs reach the copy too. The oracle is the ERG Guider, for the prediction of a single step."""
    model, latent = random_models.build("SD15"), {"samples": torch.zeros(2, 4, 16, 16)}
    hint = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(3))
    positive, negative = node(
        "ControlNetApplyAdvanced", **dict(zip(("positive", "negative"), random_models.conditions())), image=hint,
        control_net=random_models.controlnet(), strength=1.0, start_percent=0.0, end_percent=1.0,
    )  # fmt: skip

    def drawn(model, negative=negative, cfg=cfg):
        return sample(model, positive, negative, cfg=cfg, steps=1, denoise=0.3, latent=latent)

    flat = {"model": model, "temperature": 0.0, "layers": "all"}
    # Random weights hardly see a flatter attention: a strong guidance, which enlarges rounding as much.
    expected = drawn(node("EntropyGuidanceERG", **flat)[0], positive, 201.0) - drawn(model, cfg=1.0)
    found = drawn(node("EntropyGuidanceERG", **flat, scale=200.0)[0]) - drawn(model)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05 * expected.abs().max().item())


def rows_of_evaluations(model) -> list:
    """The numbers of the chunks of each evaluation of the network, as it sees them."""
    seen = []

    def spy(executor, *args, **kwargs):
        seen.append(sorted(args[5]["cond_or_uncond"]))
        return executor(*args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "after erg", spy)
    return seen


@pytest.mark.parametrize(("cfg", "chunks"), [(1.0, [0, 0]), (2.5, [0, 0, 1])])
def test_one_evaluation_a_step_in_which_the_copy_is_a_positive_condition(node, demo, prompts, sample, cfg, chunks):
    """Other nodes tell positive and negative rows by the numbers 0 and 1 alone."""
    model = own(node, demo[0])
    seen = rows_of_evaluations(model)
    sample(model, *prompts, cfg=cfg, steps=3)
    assert seen == 3 * [chunks]


@pytest.mark.parametrize("cfg", [1.0, 2.5])
def test_a_patch_that_knows_two_numbers(node, sample, cfg):
    """As IP-Adapters do: to the copy it does what it does to the positive condition, and to the others what it did."""
    model, latent = random_models.build("SD15"), {"samples": torch.zeros(2, 4, 16, 16)}
    by_number = torch.tensor([1.5, 0.5])

    def patch(q, k, v, extra_options):
        each = len(q) // len(extra_options["cond_or_uncond"])
        return q * by_number[extra_options["cond_or_uncond"]].repeat_interleave(each).view(-1, 1, 1), k, v

    def drawn(model, positive, negative, cfg):
        return sample(model, positive, negative, cfg=cfg, steps=1, latent=latent)

    patched = model.clone()
    patched.set_model_attn2_patch(patch)
    positive, negative = random_models.conditions()
    difference = drawn(own(node, patched), positive, negative, 1.0) - drawn(patched, positive, negative, 1.0)
    assert_agree(
        drawn(own(node, patched), positive, negative, cfg), drawn(patched, positive, negative, cfg) + difference
    )
    assert not agree(
        difference, drawn(own(node, model), positive, negative, 1.0) - drawn(model, positive, negative, 1.0)
    )


def test_a_patch_that_looks_for_the_first_of_a_number(node, sample):
    """As core's NAG does: it goes on to change the positive prediction, and not the copy in its place."""
    model, latent = random_models.build("SD15"), {"samples": torch.zeros(2, 4, 16, 16)}
    nag = node("NAGuidance", model=model, nag_scale=5.0)[0]
    seen = []

    def keep_positive(model):
        model = model.clone()
        model.set_model_sampler_post_cfg_function(lambda args: seen.append(args["cond_denoised"]) or args["denoised"])
        return model

    for guided in (nag, own(node, nag), model):
        sample(keep_positive(guided), *random_models.conditions(), steps=1, latent=latent)
    with_nag, beside_erg, without = seen
    assert_agree(beside_erg, with_nag)
    assert not agree(with_nag, without)


def test_in_half_precision_a_copy_is_computed_by_itself_where_that_patch_changes_its_original_alone(node, sample):
    """What NAG changes is less of the prediction than half of bfloat16's digits."""
    nag = node("NAGuidance", model=random_models.build("SD15", torch.bfloat16), nag_scale=5.0)[0]
    latent = {"samples": torch.zeros(1, 4, 16, 16)}
    shared, apart = (
        sample(
            node("EntropyGuidanceERG", model=nag, layers="6-7", scale=1.0, share_trunk=share)[0],
            *random_models.conditions(), steps=2, latent=latent,
        )
        for share in (True, False)
    )  # fmt: skip
    assert torch.equal(shared, apart)


@pytest.mark.parametrize(("cfg", "share"), [(1.0, 0.82), (2.5, 0.88)])
def test_what_comes_before_the_first_changed_layer_runs_once(node, demo, prompts, sample, monkeypatch, cfg, share):
    """Multiplications, beside those without sharing: 40 % of the copy's are spared, and nothing is compared for that."""
    monkeypatch.setattr(in_process.pack_module("nodes.attention.trunk_sharing").TrunkSharing, "_compare", None)
    drawn, counted = [], []
    for share_trunk in (True, False):
        model = own(node, demo[0], share_trunk=share_trunk)
        sample(model, *prompts, cfg=cfg)
        with FlopCounterMode(display=False) as counter:
            drawn.append(sample(model, *prompts, cfg=cfg))
        counted.append(counter.get_total_flops())
    assert_agree(*drawn)
    assert counted[0] <= share * counted[1]


def test_conditions_that_memory_sets_apart(node, demo, prompts, sample, monkeypatch):
    model = own(node, demo[0])
    together = sample(model, *prompts)
    seen = rows_of_evaluations(model)
    monkeypatch.setattr(type(model), "get_free_memory", lambda *_: 0)
    assert_agree(sample(model, *prompts), together)
    assert sorted(map(tuple, seen)) == 6 * [(0,)] + 3 * [(1,)]


def test_memory_for_two_conditions_is_for_the_positive_one_and_its_copy(node, demo, prompts, sample, monkeypatch):
    """ComfyUI would evaluate each of the three alone."""
    model = own(node, demo[0])
    together = sample(model, *prompts)
    seen = rows_of_evaluations(model)
    monkeypatch.setattr(type(model.model), "memory_required", lambda self, shape, cond_shapes={}: shape[0])
    monkeypatch.setattr(type(model), "get_free_memory", lambda *_: 1.5 * 2.5)
    assert_agree(sample(model, *prompts), together)
    assert sorted(map(tuple, seen)) == 3 * [(0, 0)] + 3 * [(1,)]


@pytest.mark.parametrize("sampler", comfy.samplers.KSampler.SAMPLERS)
def test_every_sampler_at_cfg_1(node, demo, prompts, sample, sampler):
    plain, guided = (sample(m, *prompts, steps=2, cfg=1.0, sampler=sampler) for m in (demo[0], own(node, demo[0])))
    assert guided.isfinite().all() and not torch.equal(plain, guided)


def test_cfg_pp_samplers_keep_the_negative_prediction(node, demo, prompts, sample):
    seen = []

    def spying(model):
        model = model.clone()
        model.set_model_sampler_post_cfg_function(lambda args: seen.append(args["uncond_denoised"]) or args["denoised"])
        return model

    for model in (demo[0], own(node, demo[0])):
        sample(spying(model), *prompts, steps=1, cfg=1.0, sampler="euler_cfg_pp")
    plain, guided = seen
    assert_agree(plain, guided)


def test_inpainting_keeps_what_the_mask_protects(node, demo, prompts, sample):
    kept = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 64:] = 1
    plain, guided = (
        sample(m, *prompts, cfg=1.0, latent={"samples": kept, "noise_mask": mask})
        for m in (demo[0], own(node, demo[0]))
    )
    assert_agree(guided[..., :7], kept[..., :7])
    assert not agree(plain, guided)


def with_windows(node, model):
    return node(
        "ContextWindowsManual", model=model, context_length=4, context_overlap=1, context_schedule="standard_static",
        context_stride=1, closed_loop=False, fuse_method="pyramid", dim=0, freenoise=False,
    )[0]  # fmt: skip


@pytest.mark.parametrize("order", ["before", "after"])
def test_context_windows(node, demo, prompts, sample, order):
    """Windows over the batch. At cfg 1 it is ERG with the positive prompt as its negative."""
    latent = {"samples": torch.zeros(7, 4, 16, 16)}
    model = own(node, with_windows(node, demo[0])) if order == "after" else with_windows(node, own(node, demo[0]))
    reference = with_windows(node, erg(node, demo[0]))
    guided = sample(model, *prompts, cfg=1.0, latent=latent)
    assert_agree(guided, sample(reference, prompts[0], prompts[0], cfg=2.0, latent=latent))
    assert not agree(guided, sample(with_windows(node, demo[0]), *prompts, cfg=1.0, latent=latent))


def test_several_devices(node, sample):
    model = random_models.build("SD15")
    model.cached_patcher_init = (random_models.build, ("SD15",))

    def drawn(model):
        return sample(model, *random_models.conditions(), latent={"samples": torch.zeros(2, 4, 34, 34)})

    expected = drawn(own(node, model))
    assert_agree(drawn(on_two_devices(own(node, model))), expected)
    assert not agree(expected, drawn(model))


@pytest.mark.parametrize("guider", [dual_cfg("regular"), dual_cfg("nested"), perp_neg, our_guider])
def test_guiders_of_three_conditions(node, demo, conditions, draw, guider):  # noqa: F811
    """A single step of Euler draws the prediction itself."""

    def prediction(guider):
        return draw(guider, steps=1)

    def at_cfg_1(model):
        return prediction(node("CFGGuider", model=model, positive=conditions[0], negative=conditions[1], cfg=1.0)[0])

    difference = at_cfg_1(own(node, demo[0])) - at_cfg_1(demo[0])
    expected = prediction(guider(node, demo[0], conditions)) + difference
    assert_agree(prediction(guider(node, own(node, demo[0]), conditions)), expected)


def test_a_basic_guider(node, demo, prompts, drawn, draw):  # noqa: F811
    guider = node("BasicGuider", model=own(node, demo[0]), conditioning=prompts[0])[0]
    assert_agree(draw(guider, steps=3), drawn(own(node, demo[0]), *prompts, 1.0))


def test_beside_erg_on_the_negative(node, demo, prompts, sample):
    """Both in one graph: each is what it is alone, for the difference that it makes to a first step."""

    def step(model):
        return sample(model, *prompts, steps=1, cfg=2.5)

    plain, negative, alone = step(demo[0]), step(erg(node, demo[0])), step(own(node, demo[0]))
    expected = negative + (alone - plain)
    assert_agree(step(own(node, erg(node, demo[0]))), expected)
    assert_agree(step(erg(node, own(node, demo[0]))), expected)


def test_two_branches_of_their_own(node, demo, prompts, sample):
    def step(model):
        return sample(model, *prompts, steps=1, cfg=2.5)

    def other(model):
        return node("EntropyGuidanceERG", model=model, temperature=0.0, layers="0-3", scale=0.5)[0]

    plain, first, second = step(demo[0]), step(own(node, demo[0])), step(other(demo[0]))
    assert_agree(step(other(own(node, demo[0]))), first + second - plain)


@pytest.mark.parametrize("companion", COMPANIONS)
def test_companions_in_both_orders(node, demo, prompts, sample, companion):
    """Their order does not matter but for APG and kin, which hold back the part of cfg alone, in either order."""
    choice = {"temperature": 0.05, "layers": "0,2-4,7-11", "scale": 0.7}

    def with_companion(model):
        return node(companion, model=model, **COMPANIONS[companion])[0]

    def with_erg(model):
        return node("EntropyGuidanceERG", model=model, **choice)[0]

    drawn = [
        sample(m, *prompts, steps=8) for m in (with_companion(with_erg(demo[0])), with_erg(with_companion(demo[0])))
    ]
    assert all(d.isfinite().all() for d in drawn)
    assert not agree(drawn[0], sample(with_companion(demo[0]), *prompts, steps=8))
    if companion != "LazyCache":  # which keeps what is within it: the guidance too, or not
        assert_agree(*drawn)


def test_the_spread_after_a_full_rescale_is_that_of_the_positive_prediction(node, demo, prompts, sample):
    positive = sample(demo[0], *prompts, steps=1, cfg=1.0, batch=3)
    guided = sample(own(node, demo[0], 4.0, rescale=1.0), *prompts, steps=1, cfg=3.0, batch=3)
    std = [drawn.flatten(1).std(1) for drawn in (positive, guided)]
    torch.testing.assert_close(std[1], std[0], rtol=1e-4, atol=0)
    assert not agree(guided, sample(own(node, demo[0], 4.0), *prompts, steps=1, cfg=3.0, batch=3))


def test_a_video_and_its_sound_are_rescaled_each_by_itself(node, sample):
    small, model = small_networks.NETWORKS["LTXAV"], small_networks.build("LTXAV")

    def sampled(model):
        return sample(model, *small.conditions(), latent={"samples": small.latent()}, steps=1, cfg=1.0).unbind()

    (rectified,) = node("EntropyGuidanceERG", model=model, temperature=0.05, layers="all", scale=100.0, rescale=1.0)
    for positive, guided in zip(sampled(model), sampled(rectified), strict=True):
        torch.testing.assert_close(guided.std(), positive.std(), rtol=1e-4, atol=0)
        assert not agree(guided, positive)


def test_the_window_of_steps(node, demo, prompts, sample):
    model = own(node, demo[0], start_percent=0.4)
    seen = rows_of_evaluations(model)
    sample(model, *prompts, cfg=1.0, steps=4)
    assert seen == [[0], [0], [0, 0], [0, 0]]


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_scale_0_is_what_it_was_and_other_clones_keep_their_bits(node, demo, prompts, sample, cfg):
    plain = sample(demo[0], *prompts, cfg=cfg)
    before = sample(erg(node, demo[0]), *prompts, cfg=cfg)
    sample(own(node, demo[0]), *prompts, cfg=cfg)
    assert torch.equal(sample(demo[0], *prompts, cfg=cfg), plain)
    assert torch.equal(sample(own(node, demo[0], 0.0, rescale=0.5), *prompts, cfg=cfg), before)


def test_an_exception_leaves_nothing_behind(node, demo, prompts, sample):
    model = own(node, demo[0])
    expected = sample(model, *prompts)
    failing = model.clone()
    failing.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "failing", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sample(failing, *prompts)
    assert torch.equal(sample(model, *prompts), expected)


def test_an_evaluation_that_another_node_asks_for_again_has_its_branch(node, demo, prompts, sample):
    """One that catches a want of memory."""
    model, failed = demo[0].clone(), []

    def ask_again(executor, *args):
        try:
            return executor(*args)
        except torch.cuda.OutOfMemoryError:
            return executor(*args)

    def fail_once(executor, *args, **kwargs):
        if not failed:
            failed.append(torch.cuda.OutOfMemoryError("no memory"))
            raise failed[0]
        return executor(*args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "asks again", ask_again)
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "fails once", fail_once)
    assert_agree(sample(own(node, model), *prompts), sample(own(node, demo[0]), *prompts))
    assert failed and not agree(sample(demo[0], *prompts), sample(own(node, demo[0]), *prompts))


def test_a_guider_without_a_positive_condition_is_an_error(node, demo, prompts, draw):  # noqa: F811
    guider = GuiderWithoutPositive(own(node, demo[0]))
    guider.inner_set_conds({"a": prompts[0]})
    with pytest.raises(RuntimeError, match=r"GuiderWithoutPositive\) has none. Wire a prompt to its positive input"):
        draw(guider)


def test_a_sampler_that_never_evaluates_is_said(node, demo, prompts, caplog):
    guider = comfy.samplers.CFGGuider(own(node, demo[0]))
    guider.set_conds(*prompts)
    sampler = comfy.samplers.KSAMPLER(lambda model, noise, sigmas, **_: noise)
    guider.sample(torch.zeros(1, 4, 16, 16), torch.zeros(1, 4, 16, 16), sampler, torch.tensor([1.0, 0.0]))
    assert "had no effect in this sampling: its sampler asked for no prediction" in caplog.text


class GuiderOfItsOwn(comfy.samplers.CFGGuider):
    """It evaluates the network without ComfyUI's calc_cond_batch."""

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        (entry,) = self.conds["positive"]
        prompt = entry["model_conds"]["c_crossattn"].cond.expand(len(x), -1, -1)
        options = {**model_options["transformer_options"], "cond_or_uncond": [0], "sigmas": timestep}
        return self.inner_model.apply_model(x, timestep, c_crossattn=prompt, transformer_options=options)


def test_a_guider_that_leaves_no_place_for_a_branch_is_said(node, demo, prompts, draw, caplog):  # noqa: F811
    def drawn(model):
        guider = GuiderOfItsOwn(model)
        guider.set_conds(*prompts)
        return draw(guider)

    assert torch.equal(drawn(own(node, demo[0])), drawn(demo[0]))
    assert "(GuiderOfItsOwn) or another node evaluates the model without ComfyUI's calc_cond_batch" in caplog.text


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"scale": -0.5}, "scale = -0.5: it must be a finite number of 0 or more"),
        ({"scale": float("nan")}, "scale = nan"),
        ({"scale": float("inf")}, "scale = inf"),
        ({"scale": 1.0, "rescale": 1.5}, "rescale = 1.5: it must lie between 0 and 1"),
        ({"rescale": float("nan")}, "rescale = nan"),
        ({"outside": "nothing"}, "outside = 'nothing': it must be one of ordinary, no guidance"),
    ],
)
def test_bad_input(node, demo, inputs, message):
    with pytest.raises(ValueError, match=message):
        node("EntropyGuidanceERG", model=demo[0], **inputs)


def test_a_node_that_knows_a_single_row(node):
    """As USO's style pictures and InfiniteTalk's sound: the weak branch is evaluated apart from the positive one."""
    small = small_networks.NETWORKS["Flux"]
    positive, _ = small.conditions()
    row = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(5))

    def further_text(inputs):
        text = torch.cat([row, inputs["txt"]], dim=1)  # fails with more rows than one
        ids = torch.cat([inputs["txt_ids"][:, :3], inputs["txt_ids"]], dim=1)
        return {**inputs, "txt": text, "txt_ids": ids}

    def for_any_number(inputs):
        rows = row.expand(len(inputs["txt"]), -1, -1)
        ids = torch.cat([inputs["txt_ids"][:, :3], inputs["txt_ids"]], dim=1)
        return {**inputs, "txt": torch.cat([rows, inputs["txt"]], dim=1), "txt_ids": ids}

    def drawn(patch, **inputs):
        model = small_networks.build("Flux").clone()
        model.set_model_post_input_patch(patch)
        if inputs:
            (model,) = node("EntropyGuidanceERG", model=model, layers="50%-100%", temperature=0.1, **inputs)
        latent = small.latent(1)
        return comfy.sample.sample(model, latent, 2, 1.0, "euler", "simple", positive, positive, 0 * latent, seed=3)

    with torch.inference_mode():
        guided = drawn(further_text, scale=0.5)
        assert_agree(guided, drawn(for_any_number, scale=0.5))
        assert not agree(guided, drawn(further_text))


def test_a_sampler_that_remembers_frames_of_one_branch_is_an_error(node):
    small, model = small_networks.NETWORKS["WAN21_CausalAR_T2V"], small_networks.build("WAN21_CausalAR_T2V")
    (model,) = node("EntropyGuidanceERG", model=model, layers="all", scale=0.5)
    sampler = comfy.samplers.ksampler("ar_video", {"num_frame_per_block": 1})
    latent, (positive, negative) = small.latent(1), small.conditions()
    with torch.inference_mode(), pytest.raises(RuntimeError, match="scale = 0.5: the sampler ar_video keeps"):
        comfy.sample.sample_custom(
            model, latent, 1.0, sampler, torch.tensor([1.0, 0.5, 0.0]), positive, negative, 0 * latent, seed=3
        )
