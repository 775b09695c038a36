"""A real ComfyUI inside this process, with the pack loaded by ComfyUI's own loader."""

import gc

import pytest
import torch

from benchmarks import in_process
from tests.support.network import no_network


@pytest.fixture(scope="session")
def asked_while_loading():
    """What the pack asked of a network while ComfyUI loaded it."""
    _choose_float32()
    with no_network() as asked:
        in_process.load_pack()
    return asked


@pytest.fixture(scope="session")
def node(asked_while_loading):
    """Runs a node by its id: node("EntropyGuidanceERG", model=...) returns its outputs."""
    in_process.load_core_nodes()
    return in_process.run_node


def _choose_float32() -> None:
    """Of models, in the place of what ComfyUI finds best for this machine, or COMFYUI_FLAGS ask for."""
    from comfy.cli_args import args

    for name in vars(args):
        if name.endswith(("_unet", "_vae", "_text_enc")) and name != "cpu_vae":
            setattr(args, name, name.startswith("fp32"))


@pytest.fixture(scope="module", autouse=True)
def without_network(node):
    """Whatever the tests of a file do, drawing, loading, training or saving, asks for nothing from a network."""
    with no_network() as asked:
        yield
    assert asked == []


@pytest.fixture(scope="module", autouse=True)
def forgotten(node):
    """What the tests of a file leave behind is freed at its end."""
    from comfy import model_management

    yield
    model_management.unload_all_models()
    gc.unfreeze()
    gc.collect()


@pytest.fixture(autouse=True)
def quick_collections():
    """ComfyUI collects garbage at each load as long as a clone of a loaded model has gone, which takes seconds after some
    hundred tests: what is there before a test is not looked through."""
    gc.freeze()


@pytest.fixture(autouse=True)
def inference_mode():
    """ComfyUI's executor runs every prompt in inference mode."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def demo(node):
    """MODEL, CLIP, VAE of the demo model."""
    with torch.inference_mode():
        return node("EntropyGuidanceLoadDemo")


@pytest.fixture(scope="session")
def encode(node):
    """encode(clip, text) gives a CONDITIONING."""

    def encode_text(clip, text):
        return node("CLIPTextEncode", clip=clip, text=text)[0]

    return encode_text


@pytest.fixture
def prompts(demo, encode):
    """A positive and an empty negative CONDITIONING."""
    return encode(demo[1], "a red circle left of a blue square"), encode(demo[1], "")


@pytest.fixture
def sample():
    """sample(model, positive, negative, **options) gives the latent that a KSampler draws."""

    from nodes import common_ksampler  # ComfyUI's

    def draw(
        model, positive, negative, seed=1, steps=3, cfg=3.0, sampler="euler", scheduler="simple", batch=1, **options
    ):
        latent = options.pop("latent", None)
        if latent is None:
            latent = {"samples": torch.zeros(batch, 4, 16, 16)}
        denoise = options.pop("denoise", 1.0)
        (result,) = common_ksampler(
            model, seed, steps, cfg, sampler, scheduler, positive, negative, latent, denoise=denoise, **options
        )
        return result["samples"]

    return draw
