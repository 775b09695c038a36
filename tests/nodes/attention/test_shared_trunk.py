"""Rows that are twins run once before the first changed layer: the same predictions to rounding, with less arithmetic."""

from weakref import ref

import pytest
import torch
from comfy.model_management import InterruptProcessingException, unload_all_models
from comfy_api.torch_helpers import set_torch_compile_wrapper
from comfy_extras.nodes_torch_compile import skip_torch_compile_dict
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import random_models, small_networks
from benchmarks.in_process import pack_module
from benchmarks.one_step import predict
from benchmarks.tolerance import assert_agree
from tests.nodes.attention.test_execution_modes import on_two_devices


def erg(node, model, **inputs):
    return node("EntropyGuidanceERG", model=model, **{"temperature": 0.01, **inputs})[0]


def arithmetic(run) -> int:
    """The floating-point operations of matrix products, convolutions and attention."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def small(name: str):
    """A small network's MODEL, its positive condition and a latent."""
    network = small_networks.NETWORKS[name]
    return small_networks.build(name), network.conditions()[0], network.latent(network.most)


LATE_LAYER = {"SD15": 3, "SDXL": 3, "SD3": 3, "Flux": 3, "WAN21_T2V": 1}


@pytest.mark.parametrize("name", LATE_LAYER)
def test_the_same_prompt_on_both_inputs_is_computed_once(node, name):
    model, condition, latent = small(name)
    shared, cost, unshared, full_cost = both(node, model, (condition,) * 2, latent, layers=str(LATE_LAYER[name]))
    for a, b in zip(shared, unshared, strict=True):
        assert_agree(a, b)
    assert not torch.equal(*unshared)
    assert cost < 0.9 * full_cost


def both(node, model, conditions, latent=None, **inputs):
    """The predictions with and without sharing, and what each costs, of an evaluation after the one that learns."""

    def measured(**more):
        guided = erg(node, model, **inputs, **more)
        predict(guided, conditions, latent)
        found = []
        cost = arithmetic(lambda: found.extend(predict(guided, conditions, latent)))
        return found, cost

    return *measured(), *measured(share_trunk=False)


def check_shared(node, model, conditions, latent=None, **inputs) -> None:
    shared, cost, unshared, full_cost = both(node, model, conditions, latent, **inputs)
    for a, b in zip(shared, unshared, strict=True):
        assert_agree(a, b)
    assert cost < full_cost


def check_not_shared(node, model, conditions, latent=None, **inputs) -> None:
    shared, cost, unshared, full_cost = both(node, model, conditions, latent, **inputs)
    assert all(map(torch.equal, shared, unshared)) and cost == full_cost


def test_other_prompts_and_the_off_switch_keep_every_bit(node, demo, prompts):
    check_not_shared(node, demo[0], prompts, layers="5")
    same, guided = (prompts[0],) * 2, erg(node, demo[0], layers="5", share_trunk=False)
    assert torch.equal(predict(demo[0], same)[0], predict(guided, same)[0])


def test_a_condition_beside_the_twins(node, demo, prompts):
    """Three in an evaluation: one of them without a twin."""
    check_shared(node, demo[0], (prompts[0], prompts[0], prompts[1]), layers="5")


@pytest.mark.parametrize("batch", [1, 3])
def test_pictures_of_a_batch(node, demo, prompts, batch):
    latent = torch.randn(batch, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    check_shared(node, demo[0], (prompts[0],) * 2, latent, layers="5")


def test_a_whole_sampling(node, demo, prompts, sample):
    """And other clones keep their bits."""
    plain, shared, unshared = (
        demo[0],
        *(erg(node, demo[0], layers="4-5", share_trunk=share) for share in (True, False)),
    )
    before = sample(plain, *prompts)
    draw = [lambda model=model: drawn.append(sample(model, prompts[0], prompts[0])) for model in (shared, unshared)]
    drawn: list[torch.Tensor] = []
    draw[0]()  # tries it
    costs = [arithmetic(one) for one in draw]
    for a, b in zip(drawn, drawn[1:]):
        assert_agree(a, b)
    assert costs[0] < 0.9 * costs[1]
    assert torch.equal(before, sample(plain, *prompts))
    assert not torch.equal(drawn[0], before)


def test_a_sampling_of_two_prompts_costs_what_it_did(node, demo, prompts, sample):
    """Twins are looked for once."""

    class Count(TorchDispatchMode):
        operators = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.operators += 1
            return function(*args, **(kwargs or {}))

    def count(steps, **inputs) -> int:
        model = erg(node, demo[0], layers="5", **inputs)
        sample(model, *prompts, steps=steps)
        with Count() as counter:
            sample(model, *prompts, steps=steps)
        return counter.operators

    assert count(6) - count(3) == count(6, share_trunk=False) - count(3, share_trunk=False)


def test_with_a_controlnet(node):
    """Which writes into what blocks hand on."""
    model, plain = random_models.build("SD15"), random_models.conditions()[0]
    latent, hint = random_models.latent(model, 16), torch.rand(1, 128, 128, 3)
    conditions = node(
        "ControlNetApplyAdvanced", positive=plain, negative=plain, control_net=random_models.controlnet(), image=hint,
        strength=1.0, start_percent=0.0, end_percent=1.0,
    )  # fmt: skip
    check_shared(node, model, conditions, latent, layers="7")


def test_a_node_that_tells_the_branches_apart(node):
    model, condition = random_models.build("SD15"), random_models.conditions()[0]

    def only_the_positive(q, k, v, extra):
        rows = torch.tensor([1.0 + (number == 0) for number in extra["cond_or_uncond"]])
        return q, k * rows.repeat_interleave(len(k) // len(rows))[:, None, None], v

    model.set_model_attn2_patch(only_the_positive)
    check_not_shared(node, model, (condition, condition), random_models.latent(model, 16, batch=2), layers="7")


@pytest.mark.parametrize("apply_to", ["positive", "negative", "both"])
@pytest.mark.parametrize("order", ["before", "after"])
def test_conditions_that_another_node_changes_in_some_steps(node, demo, prompts, sample, apply_to, order):
    """CADS: equal ones in one step are others in the next."""

    def drawn(share):
        nodes = [
            lambda model: erg(node, model, layers="5", share_trunk=share),
            lambda model: node("EntropyGuidanceCADS", model=model, apply_to=apply_to, tau1=0.4, tau2=0.5)[0],
        ]
        model = demo[0]
        for add in nodes if order == "before" else reversed(nodes):
            model = add(model)
        found = []
        cost = arithmetic(lambda: found.append(sample(model, prompts[0], prompts[0], steps=6)))
        return found[0], cost

    drawn(True)  # tries it
    (shared, cost), (unshared, full_cost) = drawn(True), drawn(False)
    assert_agree(shared, unshared)
    assert cost < full_cost  # once the prompts are what they were


def test_two_nodes_in_a_graph_share_nothing(node, demo, prompts):
    twice = erg(node, demo[0], layers="3", temperature=0.5)
    check_not_shared(node, twice, (prompts[0],) * 2, layers="5")


class MixesRows:
    """Makes a block's class one whose rows see each other."""

    def __init__(self, block):
        forward = type(block).forward

        def mixing(self, img, *args, **kwargs):
            img, *others = forward(self, img, *args, **kwargs)
            return img + len(img) * img.roll(1, -1), *others

        block.__class__ = type("Mixing", (type(block),), {"forward": mixing})


def test_a_network_whose_rows_see_each_other_is_left_as_it_is(node, caplog):
    model, condition, latent = small("Flux")
    MixesRows(model.model.diffusion_model.double_blocks[0])
    caplog.set_level("INFO")
    check_not_shared(node, model, (condition, condition), latent, layers="3")
    assert caplog.text.count("ERG computes each branch of Flux by itself: its blocks yield something else") == 1


class RoundsByRows:
    """Makes a block's class one that rounds otherwise for another number of rows, as kernels may."""

    def __init__(self, block):
        forward = type(block).forward

        def rounding(self, img, *args, **kwargs):
            return forward(self, img * (1 + len(img) * 2**-20), *args, **kwargs)

        block.__class__ = type("Rounding", (type(block),), {"forward": rounding})


def test_the_first_evaluation_of_a_network_rounds_as_later_ones(node):
    model, condition, latent = small("Flux")
    RoundsByRows(model.model.diffusion_model.double_blocks[0])
    guided = erg(node, model, layers="3")
    first, second = (predict(guided, (condition,) * 2, latent) for _ in range(2))
    assert all(map(torch.equal, first, second))
    unshared = predict(erg(node, model, layers="3", share_trunk=False), (condition,) * 2, latent)
    assert not all(map(torch.equal, first, unshared))


NO_MEMORY = [
    torch.cuda.OutOfMemoryError("no memory"),
    RuntimeError("MPS backend out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


@pytest.mark.parametrize("error", [*NO_MEMORY, InterruptProcessingException()])
def test_a_trial_hides_no_want_of_memory_and_no_interrupt(node, error):
    model, condition, latent = small("Flux")
    block = model.model.diffusion_model.double_blocks[0]
    forward = type(block).forward

    def failing(self, img, *args, **kwargs):
        if len(img) < 4:
            raise error
        return forward(self, img, *args, **kwargs)

    block.__class__ = type("Failing", (type(block),), {"forward": failing})
    with pytest.raises(type(error)):
        predict(erg(node, model, layers="3"), (condition, condition), latent)
    assert not any("forward" in vars(module) for module in model.model.diffusion_model.modules())


class Adds(torch.nn.Module):
    """A block that writes into what it gets."""

    def forward(self, x, transformer_options):
        self.seen = len(x), transformer_options["cond_or_uncond"]
        transformer_options["written"] = True
        result = x.add_(1)
        self.result = ref(result)
        return result


@pytest.mark.parametrize("folds", [1, 2])
def test_blocks_and_what_is_between_them_may_write(node, folds):
    shared_trunk = pack_module("nodes.attention.shared_trunk")
    first, second = Adds(), Adds()
    row_map = shared_trunk.RowMap.of(first, {1: 0}, chunks=2, rows=4)
    shared = shared_trunk.SharedRows(dict.fromkeys((first, second)), row_map)
    x = torch.arange(4.0).remainder(2).repeat_interleave(folds)[:, None]
    before, options = x.clone(), {"cond_or_uncond": [0, 1], "uuids": ["a", "b"]}
    with shared.in_force():
        y = first(x, options)
        assert first.seen == (2 * folds, [0])
        y += 10  # as a ControlNet
        assert len({row.data_ptr() for row in y}) == len(y)
        z = second(y, transformer_options=options)
    assert torch.equal(x, before)
    assert torch.equal(z, (before + 12))
    assert options == {"cond_or_uncond": [0, 1], "uuids": ["a", "b"], "written": True}


def test_what_blocks_yielded_is_freed_once_nothing_needs_it():
    """A block's rows are kept for the block after it alone, those of the last block for none."""
    shared_trunk = pack_module("nodes.attention.shared_trunk")
    first, second = Adds(), Adds()
    shared = shared_trunk.SharedRows(
        dict.fromkeys((first, second)), shared_trunk.RowMap.of(first, {1: 0}, chunks=2, rows=4)
    )
    options = {"cond_or_uncond": [0, 1]}
    with shared.in_force():
        x = first(torch.zeros(4, 1), options)
        assert first.result() is not None
        x = second(x, transformer_options=options)
        assert first.result() is None and second.result() is None
    assert torch.equal(x, torch.full((4, 1), 2.0))


@pytest.mark.parametrize("order", ["before", "after"])
def test_several_devices(node, sample, order):
    """Regional prompts, so that each of two devices evaluates several conditions."""
    model = random_models.build("SD15")
    model.cached_patcher_init = (random_models.build, ("SD15",))
    condition = random_models.conditions()[0]
    regions = node("ConditioningCombine", conditioning_1=condition, conditioning_2=condition)[0]

    def draw(model):
        return sample(model, regions, regions, latent={"samples": torch.zeros(2, 4, 16, 16)})

    expected = draw(erg(node, model, layers="6", share_trunk=False))
    two = (
        on_two_devices(erg(node, model, layers="6"))
        if order == "before"
        else erg(node, on_two_devices(model), layers="6")
    )
    for _ in range(2):
        assert_agree(draw(two), expected)


def test_compiled(node, demo, prompts):
    """Compiled code computes every row, with as many graphs as ever; ERG that it cannot hold shares."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = demo[0].clone(disable_dynamic=True)
    set_torch_compile_wrapper(compiled, backend, options={"guard_filter_fn": skip_torch_compile_dict})
    same = (prompts[0],) * 2
    for inputs, expected in (({"layers": "5"}, 1), ({"layers": "6"}, 1), ({"layers": "5", "alpha": 0.9}, 1)):
        for a, b in zip(predict(erg(node, compiled, **inputs), same), predict(erg(node, demo[0], **inputs), same)):
            assert_agree(a, b)
        assert len(graphs) == expected
    check_shared(node, compiled, same, layers="5", alpha=0.9)
    torch.compiler.reset()


@pytest.mark.parametrize("name", ["SD15", "SD3"])
def test_half_precision(node, name):
    model, (_, condition, latent) = small_networks.build(name, torch.bfloat16), small(name)
    shared, cost, unshared, full_cost = both(
        node, model, (condition,) * 2, latent.bfloat16(), layers=str(LATE_LAYER[name])
    )
    for a, b in zip(shared, unshared, strict=True):
        assert_agree(a.bfloat16(), b.bfloat16())
    assert cost < full_cost


def test_weights_that_are_streamed(node):
    """With room for a few of the weights alone: the others are brought in for each call."""
    model, condition, latent = small("SD15")
    expected = predict(erg(node, model, layers="3", share_trunk=False), (condition,) * 2, latent)
    unload_all_models()
    streamed = erg(node, model, layers="3")
    streamed.load(streamed.load_device, lowvram_model_memory=1)
    try:
        for _ in range(2):
            found = predict(streamed, (condition,) * 2, latent)
    finally:
        unload_all_models()
    for a, b in zip(found, expected, strict=True):
        assert_agree(a, b)
