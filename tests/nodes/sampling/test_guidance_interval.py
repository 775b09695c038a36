"""ERG's `outside`: no guidance outside of the window of steps."""

import comfy.samplers
import pytest
import torch
from comfy.patcher_extension import WrappersMP

from benchmarks import small_networks
from benchmarks.tolerance import agree, assert_agree
from tests.nodes.sampling.test_guider import GuiderWithoutPositive, conditions, draw, dual_cfg, our_guider, perp_neg  # noqa: F401
from tests.nodes.sampling.test_own_branch import rows_of_evaluations

FIRST_HALF = {"temperature": 0.05, "layers": "40%-60%", "end_percent": 0.5, "outside": "no guidance"}


def erg(node, model, **inputs):
    return node("EntropyGuidanceERG", model=model, **{**FIRST_HALF, **inputs})[0]


@pytest.mark.parametrize(("scale", "chunks"), [(0.0, [0, 1]), (1.0, [0, 0, 1])])
def test_a_step_outside_is_one_evaluation(node, demo, prompts, sample, scale, chunks):
    model = erg(node, demo[0], scale=scale)
    seen = rows_of_evaluations(model)
    sample(model, *prompts, cfg=3.0, steps=4)
    assert seen == [chunks, chunks, chunks, [0]]  # both ends of the window belong to it


def test_outside_it_is_the_positive_prediction(node, demo, prompts, sample):
    """The window ends before the second of two halves of a sampling."""
    model = erg(node, demo[0], temperature=1.0)  # the interval alone
    second_half = {"latent": {"samples": torch.zeros(1, 4, 16, 16)}, "denoise": 0.4}
    assert torch.equal(
        sample(model, *prompts, cfg=3.0, **second_half), sample(demo[0], *prompts, cfg=1.0, **second_half)
    )


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("APG", {"eta": 1.0, "norm_threshold": 5.0, "momentum": 0.0}),
        ("APG", {"eta": 0.0, "norm_threshold": 28.0, "momentum": -0.75}),
        ("VideoLinearCFGGuidance", {"min_cfg": 2.0}),
        ("RescaleCFG", {"multiplier": 0.7}),
        ("PerpNeg", {"neg_scale": 1.0}),
    ],
)
@pytest.mark.parametrize("erg_first", [False, True])
def test_outside_it_is_that_beside_nodes_that_make_guidance_of_both(
    node, demo, prompts, sample, name, inputs, erg_first
):
    model = erg(node, demo[0], temperature=1.0) if erg_first else demo[0]
    if name == "PerpNeg":
        inputs = {**inputs, "empty_conditioning": prompts[1]}
    (model,) = node(name, model=model, **inputs)
    model = model if erg_first else erg(node, model, temperature=1.0)
    second_half = {"latent": {"samples": torch.zeros(1, 4, 16, 16)}, "denoise": 0.4}
    assert torch.equal(
        sample(model, *prompts, cfg=3.0, **second_half), sample(demo[0], *prompts, cfg=1.0, **second_half)
    )


def test_outside_it_is_the_negative_model_that_a_sampler_reads(node):
    """A `_cfg_pp` sampler under a guider that has another model for its negative branch."""
    small = small_networks.NETWORKS["PixArtSigma"]
    main, negative = (small_networks.build("PixArtSigma") for _ in range(2))
    with torch.no_grad():
        for weight in negative.model.diffusion_model.parameters():
            weight *= 1.5
    positive, empty = small.conditions()

    def drawn(model, cfg):
        inputs = {"model": model, "model_negative": negative, "positive": positive, "negative": empty, "cfg": cfg}
        guider, latent = node("DualModelGuider", **inputs)[0], small.latent()
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
        sampler = comfy.samplers.sampler_object("euler_cfg_pp")
        return guider.sample(noise, 0 * latent, sampler, torch.tensor([3.0, 1.0, 0.5]), seed=0)

    outside = erg(node, main, temperature=1.0, end_percent=0.01)
    assert_agree(drawn(outside, 3.0), drawn(main, 1.0 + 1e-6))  # at 1 the guider does not load that model
    assert not agree(drawn(outside, 3.0), drawn(main, 3.0))


def test_momentum_begins_with_the_window(node, demo, prompts, sample):
    """What a node gathers from step to step holds no step outside, which has no guidance."""
    model, sigmas = erg(node, demo[0], start_percent=0.5, end_percent=1.0), []

    def gather(args):
        sigmas.append(args["sigma"][0].item())
        return args["conds_out"]

    model.set_model_sampler_pre_cfg_function(gather)
    sample(model, *prompts, cfg=3.0, steps=4)
    assert len(sigmas) == 2 and max(sigmas) <= 0.5


@pytest.mark.parametrize("guider", [dual_cfg("regular"), dual_cfg("nested"), perp_neg, our_guider])
def test_guiders_of_three_conditions(node, demo, conditions, draw, guider):  # noqa: F811
    """A step that is outside as a whole draws what the positive condition says."""
    model = erg(node, demo[0], start_percent=0.9, end_percent=1.0)
    plain = node("CFGGuider", model=demo[0], positive=conditions[0], negative=conditions[1], cfg=1.0)[0]
    assert_agree(draw(guider(node, model, conditions), steps=1), draw(plain, steps=1))


def test_a_sampler_that_needs_the_negative_is_said_once(node, demo, prompts, sample, caplog):
    caplog.set_level("INFO")
    drawn = sample(erg(node, demo[0], end_percent=0.1), *prompts, cfg=3.0, steps=4, sampler="euler_cfg_pp")
    assert drawn.isfinite().all()
    assert caplog.text.count("needs the negative branch all the same") == 1


def test_the_weak_condition_is_what_such_a_sampler_needs(node, demo, conditions, draw):  # noqa: F811
    """An ERG Guider without a negative has no condition of that name."""
    positive, weak, _ = conditions
    model = erg(node, demo[0], temperature=1.0, start_percent=0.6, end_percent=1.0)
    ours = node("EntropyGuidanceGuider", model=model, positive=positive, weak=weak, scale=3.0)[0]
    same = node("CFGGuider", model=model, positive=positive, negative=weak, cfg=3.0)[0]
    assert_agree(*(draw(guider, steps=4, sampler="euler_cfg_pp") for guider in (ours, same)))


def test_a_guider_without_a_positive_condition_is_said(node, demo, prompts, draw, caplog):  # noqa: F811
    caplog.set_level("INFO")
    drawn = []
    for model in (demo[0], erg(node, demo[0], end_percent=0.1)):
        guider = GuiderWithoutPositive(model)
        guider.inner_set_conds({"a": prompts[0]})
        drawn.append(draw(guider))
    assert torch.equal(*drawn)
    assert caplog.text.count("GuiderWithoutPositive has no positive condition, so its guidance is ordinary there") == 1


def test_the_whole_sampling_is_no_interval(node, demo, prompts, sample):
    whole = {"end_percent": 1.0}
    expected = sample(erg(node, demo[0], **whole, outside="ordinary"), *prompts)
    model = erg(node, demo[0], **whole)
    assert torch.equal(sample(model, *prompts), expected)
    assert not model.wrappers.get(WrappersMP.PREDICT_NOISE)


def test_a_sampling_within_another_has_a_window_of_its_own(node, demo, prompts, sample):
    """With another shift, before the first step of the outer one."""
    model, nested = erg(node, demo[0]), []
    (inner,) = node("ModelSamplingFlux", model=model, max_shift=8.0, base_shift=8.0, width=128, height=128)
    seen = rows_of_evaluations(model)

    def with_details(executor, *args, **kwargs):
        nested.append(sample(inner, *prompts, steps=1))
        return executor(*args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "details", with_details)
    sample(model, *prompts, cfg=3.0, steps=4)
    assert nested and seen == [[0, 1], [0, 1], [0, 1], [0]]


def test_other_clones_keep_their_bits(node, demo, prompts, sample):
    plain = sample(demo[0], *prompts)
    sample(erg(node, demo[0]), *prompts)
    assert torch.equal(sample(demo[0], *prompts), plain)
