"""ERG in networks that torch.compile has compiled, as by TorchCompileModel: correct, and compiled no more often."""

import gc
import weakref

import pytest
import torch
from comfy_api.torch_helpers import set_torch_compile_wrapper
from comfy_extras.nodes_torch_compile import skip_torch_compile_dict

from benchmarks import small_networks
from benchmarks.in_process import pack_module
from benchmarks.one_step import predict
from benchmarks.tolerance import agree, assert_agree


class Compiler:
    """A backend of torch.compile that runs a graph as it is, without a C++ compiler, and keeps what it was given."""

    def __init__(self):
        self.graphs = []

    def __call__(self, graph, inputs):
        self.graphs.append(graph)
        return graph.forward

    def compile(self, model):
        """As TorchCompileModel does."""
        model = model.clone(disable_dynamic=True)
        set_torch_compile_wrapper(model, self, options={"guard_filter_fn": skip_torch_compile_dict})
        return model


@pytest.fixture
def compiler():
    torch.compiler.reset()
    yield Compiler()
    torch.compiler.reset()


def erg(node, model, **inputs):
    return node("EntropyGuidanceERG", model=model, **{"temperature": 0.01, "layers": "all", **inputs})[0]


def close(a, b) -> None:
    assert_agree(a, b)


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_window_is_entered_and_left_without_a_recompilation(node, demo, prompts, sample, compiler, order):
    """Once with and once without ERG, in the first sampling."""
    inputs = {"start_percent": 0.3, "end_percent": 0.7}
    if order == "before":
        model = compiler.compile(erg(node, demo[0], **inputs))
    else:
        model = erg(node, compiler.compile(demo[0]), **inputs)
    expected = sample(erg(node, demo[0], **inputs), *prompts, steps=8)
    for _ in range(2):
        close(sample(model, *prompts, steps=8), expected)
        assert len(compiler.graphs) == 2
    assert not agree(expected, sample(demo[0], *prompts, steps=8))


def test_other_parameters_use_the_same_code(node, demo, prompts, compiler):
    compiled = compiler.compile(demo[0])
    for inputs in ({}, {"temperature": 0.5}, {"layers": "3"}, {"layers": "40%-50%", "temperature": 0.3}):
        for a, b in zip(
            predict(erg(node, compiled, **inputs), prompts), predict(erg(node, demo[0], **inputs), prompts)
        ):
            close(a, b)
    assert len(compiler.graphs) == 1


def test_a_compiler_that_ran_out_of_memory_is_asked_again_by_the_next_node(node, demo, prompts, sample):
    class Full(Compiler):
        def __call__(self, graph, inputs):
            super().__call__(graph, inputs)
            raise torch.OutOfMemoryError("out of memory")

    torch.compiler.reset()
    compiler = Full()
    compiled, expected = compiler.compile(demo[0]), sample(erg(node, demo[0]), *prompts)
    for attempts in (1, 2):
        assert torch.equal(sample(erg(node, compiled), *prompts), expected)
        assert len(compiler.graphs) == attempts
    torch.compiler.reset()


@torch._dynamo.config.patch(recompile_limit=1)
def test_shapes_beyond_those_that_may_be_compiled_run_uncompiled(node, demo, prompts, compiler):
    compiled, ordinary = (erg(node, model) for model in (compiler.compile(demo[0]), demo[0]))
    for side, graphs in ((16, 1), (20, 1), (16, 1)):
        latent = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(0))
        for a, b in zip(predict(compiled, prompts, latent), predict(ordinary, prompts, latent)):
            close(a, b)
        assert len(compiler.graphs) == graphs


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_a_branch_of_its_own(node, demo, prompts, sample, compiler, cfg):
    model = erg(node, compiler.compile(demo[0]), scale=0.7)
    close(sample(model, *prompts, cfg=cfg), sample(erg(node, demo[0], scale=0.7), *prompts, cfg=cfg))
    assert len(compiler.graphs) == 1


KINDS_OF_ERG = {
    "plain": None,
    "erg": {},
    "general": {"alpha": 0.9},
    "self": {"attention": "self"},
    "late": {"start_percent": 0.9},
}


@pytest.mark.parametrize("first", KINDS_OF_ERG)
def test_compiled_clones_do_not_mix(node, compiler, first):
    """Whatever was compiled first, each clone draws its own."""
    small, flux = small_networks.NETWORKS["FluxSchnell"], small_networks.build("FluxSchnell")
    latent, (positive, negative) = small.latent(2), small.conditions()

    def clones(model):
        return {name: model if inputs is None else erg(node, model, **inputs) for name, inputs in KINDS_OF_ERG.items()}

    ordinary, compiled = clones(flux), clones(compiler.compile(flux))
    for name in (first, *KINDS_OF_ERG, *KINDS_OF_ERG):
        for conditions in ((positive, negative), (positive, None)):
            for a, b in zip(predict(compiled[name], conditions, latent), predict(ordinary[name], conditions, latent)):
                close(a, b)
    assert vars(flux.model.diffusion_model).get("forward") is None


def test_what_runs_without_compiled_code_is_said_once(node, demo, prompts, sample, compiler, caplog):
    compiled = compiler.compile(demo[0])
    sample(erg(node, compiled), *prompts)
    assert "without its compiled code" not in caplog.text
    sample(erg(node, compiled, alpha=0.9), *prompts)
    assert caplog.text.count("Flux runs without its compiled code where ERG changes it") == 1


def test_blocks_that_are_compiled_apart(node, demo, prompts, compiler):
    plain = demo[0].clone(disable_dynamic=True)
    keys = ["diffusion_model.single_blocks.3", "diffusion_model.single_blocks.4"]
    set_torch_compile_wrapper(plain, compiler, keys=keys, options={"guard_filter_fn": skip_torch_compile_dict})
    for compiled, ordinary in ((erg(node, plain), erg(node, demo[0])), (plain, demo[0])) * 2:
        for a, b in zip(predict(compiled, prompts), predict(ordinary, prompts)):
            close(a, b)


def test_a_network_that_is_compiled_in_pieces_keeps_them(node, demo, prompts, compiler):
    """ERG runs without compiled code there, and drops none of it."""
    broken = demo[0].clone()
    name = "diffusion_model.single_blocks.3.forward"
    forward = broken.get_model_object(name)

    def in_two_pieces(*args, **kwargs):
        torch._dynamo.graph_break()
        return forward(*args, **kwargs)

    broken.add_object_patch(name, in_two_pieces)
    compiled = compiler.compile(broken)
    before = predict(compiled, prompts)
    pieces = len(compiler.graphs)
    for _ in range(2):
        for a, b in zip(predict(erg(node, compiled), prompts), predict(erg(node, broken), prompts)):
            close(a, b)
    assert all(map(torch.equal, before, predict(compiled, prompts)))
    assert pieces > 1 and len(compiler.graphs) == pieces
    whole = compiler.compile(demo[0])
    predict(erg(node, whole), prompts)
    assert len(compiler.graphs) == pieces + 1  # another clone of the same network still runs compiled
    assert "forward" not in vars(demo[0].model.diffusion_model)


def test_what_another_node_breaks_up_is_whole_without_it(node, demo, prompts, sample, compiler):
    """EasyCache reads a number of the device in the midst of the network."""
    model = erg(node, compiler.compile(demo[0]))
    cached = node("EasyCache", model=model, reuse_threshold=0.9, start_percent=0.15, end_percent=0.95, verbose=False)[0]
    sample(cached, *prompts)
    assert not compiler.graphs
    sample(erg(node, compiler.compile(demo[0])), *prompts)
    assert len(compiler.graphs) == 1


def test_layers_that_another_node_takes_away_are_an_error(node, demo, prompts, compiler):
    model = demo[0].clone()
    model.set_model_patch_replace(lambda args, extra: args, "dit", "single_block", 3)
    guided = erg(node, compiler.compile(model), layers="5")
    with pytest.raises(RuntimeError, match="ERG changed no attention of Flux: another node replaces"):
        predict(guided, prompts)
    close(predict(guided, (prompts[0], None))[0], predict(model, (prompts[0], None))[0])


def test_two_nodes_in_a_row(node, demo, prompts, compiler):
    def twice(model):
        return erg(node, erg(node, model, temperature=0.5, layers="3"), temperature=0.3, layers="3-5")

    for a, b in zip(predict(twice(compiler.compile(demo[0])), prompts), predict(twice(demo[0]), prompts)):
        close(a, b)
    assert len(compiler.graphs) == 1


@pytest.mark.parametrize("name", ["SD3", "PixArtSigma"])
@pytest.mark.parametrize("iterations", [(1, 1), (2, 1), (1, 2)])
def test_two_nodes_of_which_one_runs_without_compiled_code(node, compiler, name, iterations):
    small, model = small_networks.NETWORKS[name], small_networks.build(name)

    def twice(model):
        first = erg(node, model, temperature=0.5, layers="1", iterations=iterations[0])
        return erg(node, first, temperature=0.3, layers="0-1", iterations=iterations[1])

    found, expected = (predict(twice(m), small.conditions(), small.latent(2)) for m in (compiler.compile(model), model))
    for a, b in zip(found, expected, strict=True):
        assert_agree(a, b)


def test_the_general_energy_runs_without_compiled_code(node, demo, prompts, compiler):
    inputs = {"iterations": 2, "step_size": 1.2}
    compiled = predict(erg(node, compiler.compile(demo[0]), **inputs), prompts)
    for a, b in zip(compiled, predict(erg(node, demo[0], **inputs), prompts)):
        close(a, b)
    assert compiler.graphs == []


def test_an_override_that_is_already_there_stays_in_force(node, demo, prompts, compiler):
    def halved(attention, q, *args, **kwargs):
        return attention(q, *args, **kwargs) * 0.5

    model = demo[0].clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = halved
    for a, b in zip(predict(erg(node, compiler.compile(model)), prompts), predict(erg(node, model), prompts)):
        close(a, b)


IN_ONE_PIECE = ["SD15", "SD3", "PixArtSigma", "ErnieImage", "SVD_img2vid", "WAN22_S2V"]  # one of each way to be reached
IN_PIECES = ["LTXAV", "Hunyuan3Dv2_1", "SeedVR2"]  # torch.compile breaks their graphs, without ERG too
IN_PIECES += {"MiniMaxMusic3"} & small_networks.NETWORKS.keys()  # where ComfyUI has it


@pytest.mark.parametrize("name", [*IN_ONE_PIECE, *IN_PIECES])
def test_networks(node, compiler, name):
    """Those in one piece run compiled; with the others ERG's evaluations run without compiled code."""
    small, model = small_networks.NETWORKS[name], small_networks.build(name)
    plain = compiler.compile(model)
    latent, conditions = small.latent(small.most), small.conditions()
    expected = predict(erg(node, model), conditions, latent)
    for _ in range(2):
        for a, b in zip(predict(erg(node, plain), conditions, latent), expected):
            close(a, b)
    ordinary = predict(model, conditions, latent)
    for a, b in zip(predict(plain, conditions, latent), ordinary):
        close(a, b)
    assert not torch.equal(expected[1], ordinary[1])
    compiled = len(compiler.graphs)
    assert compiled == 2 or name in IN_PIECES
    predict(erg(node, plain), conditions, latent)
    assert len(compiler.graphs) == compiled


def test_a_network_is_forgotten_with_a_method_that_another_node_put_into_it(node):
    """As ComfyUI leaves behind, where an object patch was taken out."""
    model = small_networks.build("SD3")
    network = model.model.diffusion_model
    network.unpatchify = network.unpatchify
    pack_module("nodes.attention.compiled")._twin(network, {})
    forgotten = weakref.ref(network)
    del model, network
    gc.collect()
    assert forgotten() is None


def test_a_pytorch_that_cannot_leave_compiled_code_out_is_named(node, compiler, monkeypatch):
    """2.5's: to learn the layers of a network that no sampling has met yet, it is run without."""
    small = small_networks.NETWORKS["SD3"]
    model = erg(node, compiler.compile(small_networks.build("SD3")), layers="0")
    monkeypatch.delattr(torch.compiler, "set_stance")
    with pytest.raises(RuntimeError, match="with PyTorch 2.6 or newer"):
        predict(model, small.conditions(), small.latent(small.most))
