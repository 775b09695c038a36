"""ERG in networks that torch.compile has compiled, as by TorchCompileModel: correct, and compiled no more often."""

import pytest
import torch
from comfy_api.torch_helpers import set_torch_compile_wrapper
from comfy_extras.nodes_torch_compile import skip_torch_compile_dict

from benchmarks import small_networks
from benchmarks.one_step import predict


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
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_window_is_entered_and_left_without_a_recompilation(node, demo, prompts, sample, compiler, order):
    inputs = {"start_percent": 0.3, "end_percent": 0.7}
    if order == "before":
        model = compiler.compile(erg(node, demo[0], **inputs))
    else:
        model = erg(node, compiler.compile(demo[0]), **inputs)
    expected = sample(erg(node, demo[0], **inputs), *prompts, steps=8)
    close(sample(model, *prompts, steps=8), expected)
    assert len(compiler.graphs) == 1
    close(sample(model, *prompts, steps=8), expected)
    assert len(compiler.graphs) == 1
    assert not torch.allclose(expected, sample(demo[0], *prompts, steps=8), rtol=1e-2, atol=1e-2)


def test_other_parameters_use_the_same_code(node, demo, prompts, compiler):
    compiled = compiler.compile(demo[0])
    for inputs in ({}, {"temperature": 0.5}, {"layers": "3"}, {"layers": "40%-50%", "temperature": 0.3}):
        for a, b in zip(
            predict(erg(node, compiled, **inputs), prompts), predict(erg(node, demo[0], **inputs), prompts)
        ):
            close(a, b)
    assert len(compiler.graphs) == 1


@pytest.mark.parametrize("first", ["plain", "erg"])
def test_compiled_clones_with_and_without_erg_do_not_mix(node, demo, prompts, compiler, first):
    plain = compiler.compile(demo[0])
    guided = erg(node, plain)
    expected = {"plain": predict(demo[0], prompts), "erg": predict(erg(node, demo[0]), prompts)}
    models = {"plain": plain, "erg": guided}
    for name in (first, *models, *models):
        for a, b in zip(predict(models[name], prompts), expected[name]):
            close(a, b)
    assert len(compiler.graphs) == 2


def test_two_nodes_in_a_row(node, demo, prompts, compiler):
    def twice(model):
        return erg(node, erg(node, model, temperature=0.5, layers="3"), temperature=0.3, layers="3-5")

    for a, b in zip(predict(twice(compiler.compile(demo[0])), prompts), predict(twice(demo[0]), prompts)):
        close(a, b)
    assert len(compiler.graphs) == 1


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
