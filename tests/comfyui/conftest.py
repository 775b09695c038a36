"""A real ComfyUI inside this process, with the pack loaded by ComfyUI's own loader, and one behind HTTP."""

import asyncio
import sys

import pytest
from environment import COMFYUI, REPOSITORY

sys.path.insert(0, str(COMFYUI))  # before anything of this repository that has a name of ComfyUI's

import torch  # noqa: E402
from comfy.cli_args import args  # noqa: E402

args.cpu = not torch.cuda.is_available()

import nodes  # noqa: E402  (ComfyUI's)


@pytest.fixture(scope="session")
def node():
    """Runs a node by its id: node("EntropyGuidanceERG", model=...) returns its outputs."""
    asyncio.run(nodes.load_custom_node(str(REPOSITORY)))
    asyncio.run(nodes.init_builtin_extra_nodes())

    def run(node_id: str, **inputs):
        cls = nodes.NODE_CLASS_MAPPINGS[node_id]
        if hasattr(cls, "define_schema"):
            cls = cls.PREPARE_CLASS_CLONE(None)
            defaults = {i.id: i.default for i in cls.GET_SCHEMA().inputs if getattr(i, "default", None) is not None}
            result = cls.execute(**{**defaults, **inputs})
            return result.result if hasattr(result, "result") else result
        return getattr(cls(), cls.FUNCTION)(**inputs)

    return run


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

    def draw(model, positive, negative, seed=1, steps=3, cfg=3.0, sampler="euler", scheduler="simple", batch=1, **options):
        latent = options.pop("latent", None)
        if latent is None:
            latent = {"samples": torch.zeros(batch, 4, 16, 16)}
        denoise = options.pop("denoise", 1.0)
        (result,) = nodes.common_ksampler(
            model, seed, steps, cfg, sampler, scheduler, positive, negative, latent, denoise=denoise, **options
        )
        return result["samples"]

    return draw
