"""ERG's own guider, and ERG with ComfyUI's guiders: which of their conditions is the weak branch."""

import comfy.samplers
import pytest
import torch

import nodes
from benchmarks.tolerance import assert_agree


@pytest.fixture
def conditions(demo, encode):
    """Three CONDITIONINGs."""
    return tuple(encode(demo[1], text) for text in ("a red circle left of a blue square", "", "a green triangle"))


@pytest.fixture
def draw(node, demo):
    """draw(guider, steps, sampler) gives the latent that SamplerCustomAdvanced draws."""

    def run(guider, steps=2, sampler="euler"):
        return node(
            "SamplerCustomAdvanced", noise=node("RandomNoise", noise_seed=1)[0], guider=guider,
            sampler=node("KSamplerSelect", sampler_name=sampler)[0],
            sigmas=node("BasicScheduler", model=demo[0], scheduler="simple", steps=steps, denoise=1.0)[0],
            latent_image=node("EmptyLatentImage", width=128, height=128, batch_size=2)[0],
        )[0]["samples"]  # fmt: skip

    return run


def erg(node, model, **inputs):
    return node("EntropyGuidanceERG", model=model, **{"temperature": 0.05, "layers": "all", **inputs})[0]


def tempered(model, weak):
    """The oracle of ERG: an override of its own that scales the queries of the weak condition, given by number."""
    model = model.clone()

    def override(attention, q, *args, transformer_options, **kwargs):
        chunks = transformer_options["cond_or_uncond"]
        scale = torch.tensor([0.05 if chunk == weak else 1.0 for chunk in chunks]).repeat_interleave(
            len(q) // len(chunks)
        )
        return attention(q * scale.view(-1, 1, 1, 1), *args, transformer_options=transformer_options, **kwargs)

    model.model_options["transformer_options"]["optimized_attention_override"] = override
    return model


def our_guider(node, model, conditions, **inputs):
    positive, weak, negative = conditions
    inputs = {"scale": 2.0, "negative_scale": 1.5, **inputs}
    return node("EntropyGuidanceGuider", model=model, positive=positive, weak=weak, negative=negative, **inputs)[0]


def dual_cfg(style):
    def guider(node, model, conditions):
        return node(
            "DualCFGGuider", model=model, cond1=conditions[0], cond2=conditions[2], negative=conditions[1], cfg_conds=3.0,
            cfg_cond2_negative=2.0, style=style,
        )[0]  # fmt: skip

    return guider


def perp_neg(node, model, conditions):
    return node(
        "PerpNegGuider", model=model, positive=conditions[0], negative=conditions[2], empty_conditioning=conditions[1],
        cfg=3.0, neg_scale=1.0,
    )[0]  # fmt: skip


class GuiderWithoutPositive(comfy.samplers.CFGGuider):
    """Of another pack, with one condition by a name that says nothing."""

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        return comfy.samplers.calc_cond_batch(self.inner_model, [self.conds["a"]], x, timestep, model_options)[0]


@pytest.mark.parametrize(
    ("guider", "weak"), [(our_guider, 1), (dual_cfg("regular"), 0), (dual_cfg("nested"), 0), (perp_neg, 2)]
)
def test_guiders_of_three_conditions(node, demo, conditions, draw, guider, weak):
    plain, rectified = draw(guider(node, demo[0], conditions)), draw(guider(node, erg(node, demo[0]), conditions))
    assert not torch.equal(plain, rectified)
    expected = draw(guider(node, tempered(demo[0], weak), conditions))
    assert_agree(rectified, expected)
    assert torch.equal(plain, draw(guider(node, demo[0], conditions)))


@pytest.mark.parametrize("companion", ["PerturbedAttentionGuidance", "SkipLayerGuidanceDiT"])
def test_single_conditions_that_other_nodes_evaluate_are_not_the_weak_one(node, demo, conditions, draw, companion):
    """They are numbered 0, as DualCFGGuider numbers its negative condition."""
    inputs = {"scale": 3.0, "start_percent": 0.0, "end_percent": 1.0, "double_layers": "1", "single_layers": ""}
    inputs = inputs if companion == "SkipLayerGuidanceDiT" else {"scale": 3.0}
    single = []

    def spy(executor, *args, **kwargs):
        options = args[5]
        if len(options["cond_or_uncond"]) == 1:
            single.append("optimized_attention_override" in options)
        return executor(*args, **kwargs)

    model = node(companion, model=erg(node, demo[0]), **inputs)[0]
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "spy", spy)
    draw(dual_cfg("regular")(node, model, conditions))
    assert single and not any(single)


def test_skip_layer_guidance_of_the_simple_kind_acts_in_our_guider(node, demo, conditions, draw):
    """It evaluates the weak branch in its own way; with a negative prompt, that one is evaluated apart."""
    simple = node("SkipLayerGuidanceDiTSimple", model=erg(node, demo[0]), double_layers="1", single_layers="")[0]
    cfg = node("CFGGuider", model=simple, positive=conditions[0], negative=conditions[1], cfg=2.5)[0]
    assert torch.equal(draw(cfg), draw(our_guider(node, simple, conditions, scale=2.5, negative_scale=1.0)))
    both = draw(our_guider(node, simple, conditions, scale=2.5), steps=1)
    one = draw(our_guider(node, simple, conditions, scale=2.5, negative_scale=1.0), steps=1)
    plain = [draw(our_guider(node, demo[0], conditions, scale=1.0, negative_scale=n), steps=1) for n in (1.5, 1.0)]
    assert_agree(both - one, plain[0] - plain[1])


def test_a_negative_prompt_without_its_scale(node, demo, conditions, draw):
    """ComfyUI's API leaves out optional inputs that a graph does not give."""
    inputs = {
        "model": demo[0],
        "positive": conditions[0],
        "weak": conditions[1],
        "scale": 2.0,
        "negative": conditions[2],
    }
    execute = nodes.NODE_CLASS_MAPPINGS["EntropyGuidanceGuider"].execute
    assert torch.equal(
        draw(execute(**inputs).result[0]), draw(our_guider(node, demo[0], conditions, negative_scale=2.0))
    )


def test_a_guider_of_unknown_conditions_is_refused(node, demo, conditions, draw):
    class Unknown(comfy.samplers.CFGGuider):
        """Some pack's guider of three conditions."""

        def predict_noise(self, x, timestep, model_options={}, seed=None):
            conds = list(self.conds.values())
            return comfy.samplers.calc_cond_batch(self.inner_model, conds, x, timestep, model_options)[0]

    guider = Unknown(erg(node, demo[0]))
    guider.inner_set_conds(dict(zip(("first", "second", "third"), conditions, strict=True)))
    with pytest.raises(
        RuntimeError, match=r"which of this guider's conditions \(first, second, third\) is its weak branch"
    ):
        draw(guider)


def test_without_a_negative_it_is_cfg(node, demo, conditions, draw):
    model = erg(node, demo[0])
    cfg = node("CFGGuider", model=model, positive=conditions[0], negative=conditions[1], cfg=2.5)[0]
    expected = draw(cfg)
    for inputs in ({"negative": None}, {"negative": conditions[2], "negative_scale": 1.0}):
        guider = node(
            "EntropyGuidanceGuider", model=model, positive=conditions[0], weak=conditions[1], scale=2.5, **inputs
        )[0]
        assert torch.equal(expected, draw(guider))


@pytest.mark.parametrize(("scale", "negative_scale"), [(2.0, 3.0), (1.0, 2.0), (0.0, 0.5), (3.0, 1.0)])
def test_the_formula(node, demo, conditions, draw, scale, negative_scale):
    """One Euler step from pure noise is the guided prediction itself."""
    model = erg(node, demo[0])
    guided = draw(our_guider(node, model, conditions, scale=scale, negative_scale=negative_scale), steps=1)

    def alone(model, condition):
        cfg = node("CFGGuider", model=model, positive=condition, negative=condition, cfg=1.0)[0]
        return draw(cfg, steps=1)

    # A scale of 0 leaves the weak branch alone.
    weak = draw(our_guider(node, model, conditions, scale=0.0, negative_scale=1.0), steps=1)
    positive, negative = alone(demo[0], conditions[0]), alone(demo[0], conditions[2])
    expected = weak + scale * (positive - weak) + (negative_scale - 1) * (positive - negative)
    assert_agree(guided, expected)


@pytest.mark.parametrize(
    ("inputs", "count"),
    [({}, 3), ({"negative_scale": 1.0}, 2), ({"scale": 1.0}, 2), ({"scale": 1.0, "negative_scale": 1.0}, 1)],
)
def test_all_branches_run_in_one_batch(node, demo, conditions, draw, inputs, count):
    """With prompts of one length; a branch of scale 1 is spared."""
    batches = []

    def spy(executor, x, *args, **kwargs):
        batches.append((len(x), sorted(args[4]["cond_or_uncond"])))
        return executor(x, *args, **kwargs)

    model = demo[0].clone()
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "spy", spy)
    draw(our_guider(node, model, conditions, **inputs), steps=3)
    assert [size for size, _ in batches] == [2 * count] * 3
    assert len(set(map(tuple, (chunks for _, chunks in batches)))) == 1


@pytest.mark.parametrize(
    ("companion", "inputs"), [("APG", {}), ("RescaleCFG", {"multiplier": 0.7}), ("CFGZeroStar", {})]
)
def test_what_others_do_to_cfg_they_do_to_the_weak_part(node, demo, conditions, draw, companion, inputs):
    model = node(companion, model=erg(node, demo[0]), **inputs)[0]
    cfg = node("CFGGuider", model=model, positive=conditions[0], negative=conditions[1], cfg=2.5)[0]
    guider = our_guider(node, model, conditions, scale=2.5, negative_scale=1.0)
    assert torch.equal(draw(cfg), draw(guider))
    both = draw(our_guider(node, model, conditions, scale=2.5, negative_scale=2.0))
    assert both.isfinite().all() and not torch.equal(both, draw(guider))


def test_classifier_like_post_cfg_functions_see_the_guided_prediction(node, demo, conditions, draw):
    seen = []
    model = demo[0].clone()
    model.set_model_sampler_post_cfg_function(lambda args: seen.append(args["cond_scale"]) or args["denoised"])
    draw(our_guider(node, model, conditions))
    assert seen == [2.0, 2.0]


@pytest.mark.parametrize("name", ["scale", "negative_scale"])
@pytest.mark.parametrize("value", [-0.5, float("nan"), float("inf")])
def test_bad_scales(node, demo, conditions, name, value):
    with pytest.raises(ValueError, match=f"{name} = .*must be a finite number of 0 or more"):
        our_guider(node, demo[0], conditions, **{name: value})


def test_a_guider_without_steps_of_erg_still_says_so(node, demo, conditions, draw, caplog):
    draw(our_guider(node, erg(node, demo[0]), conditions, scale=1.0))
    assert "had no effect in this sampling" in caplog.text


def test_conditions_of_unequal_length(node, demo, encode, conditions, draw):
    """They run in several batches, in any order."""
    long = encode(demo[1], "a red circle left of a blue square on a white background " * 3)
    for uneven in ((long, *conditions[1:]), (conditions[0], long, conditions[2]), (*conditions[:2], long)):
        drawn, expected = (draw(our_guider(node, m, uneven)) for m in (erg(node, demo[0]), tempered(demo[0], 1)))
        assert_agree(drawn, expected)


def test_a_scale_of_1_is_said_in_the_log(node, demo, conditions, draw, caplog):
    draw(our_guider(node, demo[0], (*conditions[:2], None), scale=1.0))
    assert "The ERG Guider had no effect in this sampling: scale is 1. Set it above 1." in caplog.text
