"""ERG in every way in which ComfyUI holds and runs a model: low precision, quantised, streamed, on several devices."""

import threading

import comfy.model_management
import comfy.ops
import pytest
import torch
from comfy.patcher_extension import WrappersMP

from benchmarks import random_models
from benchmarks.one_step import predict
from benchmarks.tolerance import agree, assert_agree


def erg(node, model, **inputs):
    return node("EntropyGuidanceERG", model=model, **{"temperature": 0.01, "layers": "all", **inputs})[0]


def check(node, model) -> None:
    """The positive branch keeps its bits, the negative one changes."""
    latent = random_models.latent(model, 16, batch=2)
    ordinary, weak = (predict(m, random_models.conditions(), latent) for m in (model, erg(node, model)))
    assert torch.equal(ordinary[0], weak[0])
    assert weak[1].isfinite().all() and not torch.equal(ordinary[1], weak[1])
    again = predict(model, random_models.conditions(), latent)
    assert all(map(torch.equal, ordinary, again))


@pytest.mark.parametrize("architecture", ["SD15", "SD3", "PixArtSigma"])
def test_weights_of_eight_bits(node, architecture):
    """fp8 weights, computed in bfloat16, as with weight_dtype fp8 of ComfyUI's loader."""
    model = random_models.build(architecture, torch.float8_e4m3fn, compute=torch.bfloat16)
    assert any(p.dtype == torch.float8_e4m3fn for p in model.model.diffusion_model.parameters())
    check(node, model)


class Dequantising(comfy.ops.manual_cast):
    """Linear layers that keep 8-bit integers and a scale, and make their weights anew in each call, as GGUF packs do."""

    class Linear(comfy.ops.manual_cast.Linear):
        def quantise(self):
            scale = self.weight.abs().amax() / 127
            self.register_buffer("scale", scale)
            self.register_buffer("integers", (self.weight / scale).round().to(torch.int8))
            self.weight = None

        def forward(self, x):
            return torch.nn.functional.linear(x, self.integers.to(x.dtype) * self.scale.to(x.dtype), self.bias)


@pytest.mark.parametrize("architecture", ["SD15", "PixArtSigma"])
def test_weights_that_are_made_in_each_call(node, architecture):
    model = random_models.build(architecture, operations=Dequantising)
    linear = [m for m in model.model.diffusion_model.modules() if isinstance(m, Dequantising.Linear)]
    for module in linear:
        module.quantise()
    assert len(linear) > 10
    check(node, model)


@pytest.mark.parametrize("architecture", ["SD15", "SD3", "PixArtSigma"])
def test_weights_that_are_streamed(node, architecture):
    """With room for a few of the weights alone: the others are brought in for each call."""
    model = random_models.build(architecture)
    expected = predict(model, random_models.conditions(), random_models.latent(model, 16, batch=2))
    erg_expected = predict(erg(node, model), random_models.conditions(), random_models.latent(model, 16, batch=2))
    comfy.model_management.unload_all_models()
    streamed = erg(node, model)
    streamed.load(streamed.load_device, lowvram_model_memory=1)
    assert streamed.model.model_lowvram
    try:
        weak = predict(streamed, random_models.conditions(), random_models.latent(model, 16, batch=2))
    finally:
        comfy.model_management.unload_all_models()
    assert_agree(weak[0], expected[0])
    assert_agree(weak[1], erg_expected[1])


@pytest.mark.parametrize("architecture", ["SD15", "PixArtSigma"])
@pytest.mark.parametrize("order", ["before", "after"])
def test_several_devices(node, sample, architecture, order):
    """ComfyUI's own code for several GPUs, on two names of the CPU: each branch in a thread and on a copy of its own."""
    model = random_models.build(architecture)
    model.cached_patcher_init = (random_models.build, (architecture,))
    seen = set()

    def draw(model):
        return sample(model, *random_models.conditions(), latent={"samples": torch.zeros(2, 4, 34, 34)})

    def spy(executor, *args, **kwargs):
        seen.add((threading.get_ident(), id(executor.class_obj), tuple(args[5]["cond_or_uncond"])))
        return executor(*args, **kwargs)

    plain, expected = draw(model), draw(erg(node, model))
    guided = on_two_devices(erg(node, model)) if order == "before" else erg(node, on_two_devices(model))
    guided.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "spy", spy)
    assert_agree(draw(guided), expected)
    assert not agree(expected, plain)
    assert len(seen) == 2 and {chunks for _, _, chunks in seen} == {(0,), (1,)}
    assert len({thread for thread, _, _ in seen}) == len({network for _, network, _ in seen}) == 2


def on_two_devices(model):
    """As ComfyUI's MultiGPU nodes do for a second GPU."""
    model = model.clone()
    copy = model.deepclone_multigpu(new_load_device=torch.device("cpu", 0))
    copy.is_multigpu_base_clone = True
    model.set_additional_models("multigpu", [copy])
    return model
