"""Kinds of hook that other packs put into a MODEL, beside ERG, Record, CADS and Apply, before them and behind them.

The other pack's hook is called as often as without us, and does what it does; so do we.
"""

from dataclasses import dataclass

import comfy.samplers
import pytest
import torch
from comfy.patcher_extension import WrappersMP

from benchmarks import random_models

OVERRIDE = "optimized_attention_override"
ATTENTION = "diffusion_model.middle_block.1.transformer_blocks.0.attn1.forward"
ERG = {"temperature": 0.1, "layers": "all"}
# Our nodes, some at once. Without the sharing of rows, which tries a network both ways in the first evaluation of a sampling.
OURS = {
    "ERG": {
        "EntropyGuidanceERG": {**ERG, "attention": "self"},
        "EntropyGuidanceRecord": {},
    },
    "others": {
        "EntropyGuidanceERG": {**ERG, "scale": 0.8, "share_trunk": False},
        "EntropyGuidanceCADS": {"tau1": 0.1},
        "EntropyGuidanceApply": {"scale": 0.5, "every": 1},
    },
}


@dataclass
class Hook:
    """Of another pack. It counts its calls, and changes what passes through it."""

    calls: int = 0

    def seen(self, value: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return 0.9 * value


def attention_override(model, hook):
    options = model.model_options["transformer_options"]
    before = options.get(OVERRIDE)

    def override(attention, q, *args, **kwargs):
        q = hook.seen(q)
        return attention(q, *args, **kwargs) if before is None else before(attention, q, *args, **kwargs)

    options[OVERRIDE] = override


def attn1_patch(model, hook):
    model.set_model_attn1_patch(lambda q, k, v, options: (hook.seen(q), k, v))


def attn2_patch(model, hook):
    model.set_model_attn2_patch(lambda q, k, v, options: (q, k, hook.seen(v)))


def attn1_output_patch(model, hook):
    model.set_model_attn1_output_patch(lambda n, options: hook.seen(n))


def attn1_replacement(model, hook):
    model.set_model_attn1_replace(lambda q, k, v, options: hook.seen(v), "middle", 0)


def attn2_replacement(model, hook):
    model.set_model_attn2_replace(lambda q, k, v, options: hook.seen(q), "middle", 0)


def model_function_wrapper(model, hook):
    model.set_model_unet_function_wrapper(
        lambda apply_model, args: hook.seen(apply_model(args["input"], args["timestep"], **args["c"]))
    )


def calc_cond_batch_function(model, hook):
    def evaluate(args):
        asked = (args[name] for name in ("model", "conds", "input", "sigma", "model_options"))
        positive, *others = comfy.samplers.calc_cond_batch(*asked)
        return [hook.seen(positive), *others]

    model.set_model_sampler_calc_cond_batch_function(evaluate)


def cfg_function(model, hook):
    model.set_model_sampler_cfg_function(
        lambda args: args["uncond"] + hook.seen(args["cond"] - args["uncond"]) * args["cond_scale"]
    )


def pre_cfg_function(model, hook):
    model.set_model_sampler_pre_cfg_function(lambda args: [hook.seen(args["conds_out"][0]), *args["conds_out"][1:]])


def post_cfg_function(model, hook):
    model.set_model_sampler_post_cfg_function(lambda args: hook.seen(args["denoised"]))


def object_patch(model, hook):
    """On a module that ERG patches too, where it tells kinds of attention."""
    forward = model.get_model_object(ATTENTION)
    model.add_object_patch(ATTENTION, lambda *args, **kwargs: hook.seen(forward(*args, **kwargs)))


def wrapper(kind):
    def add(model, hook):
        def around(executor, *args, **kwargs):
            result = executor(*args, **kwargs)
            return [hook.seen(result[0]), *result[1:]] if isinstance(result, list) else hook.seen(result)

        model.add_wrapper_with_key(kind, "other pack", around)

    add.__name__ = f"wrapper of {kind}"
    return add


KINDS = ("OUTER_SAMPLE", "SAMPLER_SAMPLE", "PREDICT_NOISE", "CALC_COND_BATCH", "APPLY_MODEL", "DIFFUSION_MODEL")
HOOKS = [
    attention_override, attn1_patch, attn2_patch, attn1_output_patch, attn1_replacement, attn2_replacement,
    model_function_wrapper, calc_cond_batch_function, cfg_function, pre_cfg_function, post_cfg_function, object_patch,
    *(wrapper(getattr(WrappersMP, kind)) for kind in KINDS),
]  # fmt: skip


@pytest.fixture(scope="module")
def ours(node):
    """ours(model, name) gives a model with nodes of ours."""
    classifier = node("EntropyGuidanceLoadClassifier", classifier_name="entropy-guidance-demo")[0]
    score = node("EntropyGuidanceScore", classifier=classifier, labels="blue")[0]
    more = {"EntropyGuidanceApply": {"score": score, "vae": node("EntropyGuidanceLoadDemo")[2]}}

    def add(model, name):
        for node_id, inputs in OURS[name].items():
            model = node(node_id, model=model, **inputs, **more.get(node_id, {}))[0]
        return model

    return add


@pytest.fixture
def draw(sample):
    return lambda model: sample(model, *random_models.conditions(), steps=1, cfg=3.0)


@pytest.fixture(scope="module")
def network():
    with torch.inference_mode():
        return random_models.build("SD15")


@pytest.fixture(scope="module")
def drawn_alone():
    """What our nodes draw without another pack, by their name."""
    return {}


def hooked(model, add):
    """A clone with a hook."""
    model, hook = model.clone(), Hook()
    add(model, hook)
    return model, hook


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("add", HOOKS)
def test_a_hook_and_our_nodes_in_both_orders(network, ours, draw, drawn_alone, add, name):
    other, hook = hooked(network, add)
    without_us, calls = draw(other), hook.calls
    if name not in drawn_alone:  # and whatever is learnt of a network once is learnt
        drawn_alone[name] = draw(ours(network, name))
    hook.calls = 0
    behind = draw(ours(other, name))
    model, hook_before = hooked(ours(network, name), add)
    before = draw(model)
    assert hook.calls == hook_before.calls == calls > 0
    for drawn in (before, behind):
        assert drawn.isfinite().all()
        assert not torch.equal(drawn, without_us) and not torch.equal(drawn, drawn_alone[name])
