"""Kinds of hook that other packs put into a MODEL, beside ERG, Record, CADS and Apply, before them and behind them.

The other pack's hook is called as often as without us, and does what it does; so do we. Where it fails, nothing of ours is
left behind in the network, in other clones, or in the clone that it failed in.
"""

from dataclasses import dataclass
from itertools import product
from math import inf
from types import MethodType

import comfy.samplers
import pytest
import torch
from comfy.model_management import InterruptProcessingException
from comfy.patcher_extension import WrappersMP

from benchmarks import random_models
from tests.nodes.attention.test_neighbours import draw as draw_with

OVERRIDE = "optimized_attention_override"
ATTENTION = "diffusion_model.middle_block.1.transformer_blocks.0.attn1.forward"
ERG = {"temperature": 0.1, "layers": "all"}
SHARING = "a branch that shares its trunk"
# Our nodes, some at once.
OURS = {
    "ERG": {
        "EntropyGuidanceERG": {**ERG, "attention": "self"},
        "EntropyGuidanceRecord": {},
    },
    "others": {
        "EntropyGuidanceERG": {**ERG, "scale": 0.8, "share_trunk": False},
        "EntropyGuidanceCADS": {"tau1": 0.1},
        "EntropyGuidanceApply": {"scale": 0.5, "every": 1, "decode": "half"},
    },
    SHARING: {"EntropyGuidanceERG": {**ERG, "layers": "50%-100%", "scale": 0.8}},
}


@dataclass
class Hook:
    """Of another pack. It counts its calls, and changes what passes through it. error: raised from call `fails_at` on."""

    calls: int = 0
    fails_at: float = inf
    error: Exception | None = None

    def seen(self, value: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls >= self.fails_at:
            raise self.error
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


def input_block_patch(model, hook):
    model.set_model_input_block_patch(lambda h, options: hook.seen(h))


def middle_block_patch(model, hook):
    model.set_model_middle_block_after_patch(lambda args: {"h": hook.seen(args["h"])})


def output_block_patch(model, hook):
    model.set_model_output_block_patch(lambda h, skip, options: (hook.seen(h), skip))


def block_replacement(kind, number):
    """Of a block of a transformer, which the replacement runs itself."""

    def add(model, hook):
        def replaced(args, extra):
            results = extra["original_block"](args)
            return {**results, "img": hook.seen(results["img"])}

        model.set_model_patch_replace(replaced, "dit", kind, number)

    add.__name__ = f"replacement of {kind} {number}"
    return add


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


def prepare_sampling_wrapper(model, hook):
    """Gives the sampling conditions of its own."""

    def around(executor, *args, **kwargs):
        network, conditions, models = executor(*args, **kwargs)
        changed = {
            name: [{**entry, "cross_attn": hook.seen(entry["cross_attn"])} for entry in entries]
            for name, entries in conditions.items()
        }
        return network, changed, models

    model.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, "other pack", around)


class OthersGuider(comfy.samplers.CFGGuider):
    """Changes the prediction, inside of what wraps it."""

    def __init__(self, model, hook):
        super().__init__(model)
        self._hook = hook

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        return self._hook.seen(super().predict_noise(x, timestep, model_options, seed))


KINDS = ("OUTER_SAMPLE", "SAMPLER_SAMPLE", "PREDICT_NOISE", "CALC_COND_BATCH", "APPLY_MODEL", "DIFFUSION_MODEL")
HOOKS = [
    attention_override, attn1_patch, attn2_patch, attn1_output_patch, attn1_replacement, attn2_replacement,
    input_block_patch, middle_block_patch, output_block_patch,
    model_function_wrapper, calc_cond_batch_function, cfg_function, pre_cfg_function, post_cfg_function, object_patch,
    prepare_sampling_wrapper, *(wrapper(getattr(WrappersMP, kind)) for kind in KINDS),
]  # fmt: skip
BLOCKS = [block_replacement("double_block", 1), block_replacement("single_block", 3)]


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
    if name not in drawn_alone:
        drawn_alone[name] = draw(ours(network, name))
    behind = ours(other, name)
    before, hook_before = hooked(ours(network, name), add)
    for model in (behind, before):
        draw(model)  # learns what is learnt once
    hook.calls = hook_before.calls = 0
    drawn = draw(before), draw(behind)
    assert {hook.calls, hook_before.calls} <= as_often(calls, name)
    check_effects(drawn, without_us, drawn_alone[name])


def as_often(calls, name):
    """As many calls of a hook as without us. In a network that others change, the first evaluation of each sampling, here the
    only one, runs twice to find out whether rows can be shared."""
    assert calls > 0
    return {calls, 2 * calls} if name == SHARING else {calls}


def check_effects(drawn, without_us, drawn_alone):
    """Both are there: the other pack's and ours."""
    for latent in drawn:
        assert latent.isfinite().all()
        assert not torch.equal(latent, without_us) and not torch.equal(latent, drawn_alone)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("add", BLOCKS)
def test_a_replaced_block_and_our_nodes_in_both_orders(demo, prompts, sample, ours, add, name):
    """In the demo model, whose blocks tell no key: ERG learns its layers with each replacement once."""

    def draw(model):
        return sample(model, *prompts, steps=1)

    other, hook = hooked(demo[0], add)
    without_us, calls = draw(other), hook.calls
    alone, behind = draw(ours(demo[0], name)), ours(other, name)
    draw(behind)
    hook.calls = 0
    drawn_behind = draw(behind)
    model, hook_before = hooked(ours(demo[0], name), add)
    drawn_before = draw(model)
    assert {hook.calls, hook_before.calls} <= as_often(calls, name)
    check_effects((drawn_before, drawn_behind), without_us, alone)


@pytest.mark.parametrize("name", OURS)
def test_a_guider_of_another_pack(network, ours, name):
    def drawn(model, hook):
        guider = OthersGuider(model, hook)
        guider.set_conds(*random_models.conditions())
        guider.set_cfg(3.0)
        return draw_with(guider, steps=1)

    hook, with_us = Hook(), Hook()
    without_us = drawn(network, hook)
    both = drawn(ours(network, name), with_us)
    assert hook.calls == 1 and with_us.calls in as_often(1, name)
    guider = comfy.samplers.CFGGuider(ours(network, name))
    guider.set_conds(*random_models.conditions())
    guider.set_cfg(3.0)
    check_effects((both,), without_us, draw_with(guider, steps=1))


ERRORS = [RuntimeError("of another pack"), torch.cuda.OutOfMemoryError("no memory"), InterruptProcessingException()]


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("add", HOOKS)
def test_a_hook_that_fails_leaves_nothing_behind(network, ours, sample, add, name):
    """Inside of our wrappers, which it passes through."""
    conditions = random_models.conditions()
    check_failures(network, ours, add, name, lambda model: sample(model, *conditions, steps=2, cfg=3.0))


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("add", BLOCKS)
def test_a_replaced_block_that_fails_leaves_nothing_behind(demo, prompts, sample, ours, add, name):
    check_failures(demo[0], ours, add, name, lambda model: sample(model, *prompts, steps=2))


def check_failures(network, ours, add, name, draw):
    """At its first call, and with half of them behind it: of one that is called once a step, a whole step."""
    without_us = draw(network)
    model, hook = hooked(ours(network, name), add)
    draw(model)  # learns what is learnt once
    hook.calls = 0
    expected, calls = draw(model), hook.calls
    for hook.error, hook.fails_at in product(ERRORS, {1, calls // 2 + 1}):
        hook.calls = 0
        with pytest.raises(type(hook.error)):
            draw(model)
        hook.fails_at = inf
        assert not hooks_in(network)
        assert torch.equal(draw(network), without_us)
        assert not replaced_in(network)
        assert torch.equal(draw(model), expected)


def hooks_in(model) -> list[torch.nn.Module]:
    """The modules of a network that have a hook of PyTorch's."""
    modules = model.model.diffusion_model.modules()
    return [module for module in modules if module._forward_hooks or module._forward_pre_hooks]


def replaced_in(model) -> list[str]:
    """The modules of a network that have another method in the place of their class's."""
    return [
        f"{name}.{own}"
        for name, module in model.model.diffusion_model.named_modules()
        for own, value in vars(module).items()
        if callable(method := getattr(type(module), own, None)) and value != MethodType(method, module)
    ]
