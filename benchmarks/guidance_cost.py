"""What classifier guidance costs: `python -m benchmarks.guidance_cost`.

Arithmetic on Stable Diffusion 1.5, time and memory of the demo model's steps, and how far the gradient through a small
picture points from the one through the whole VAE.
"""

from statistics import median

import comfy.ops
import torch
import torch.nn.functional as F
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.taesd.taesd import TAESD
from torch._subclasses import FakeTensorMode
from torchvision.models import resnet50

import nodes

from . import results
from .arithmetic import flops
from .in_process import pack_module, run_node
from .random_models import SD_VAE
from .step_cost import peak_memory, seconds

PAIRS = 5
STEPS = 8
# Stable Diffusion 1.5 as published.
UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [2, 2, 2, 2],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_output": [1] * 9 + [0] * 3,
    "transformer_depth_middle": 1, "channel_mult": [1, 2, 4, 4], "num_heads": 8, "use_spatial_transformer": True,
    "context_dim": 768, "legacy": False, "use_temporal_attention": False,
}  # fmt: skip


def measure(quick: bool) -> dict:
    pairs = 1 if quick else PAIRS
    return {"pairs": pairs, "arithmetic": _arithmetic(), "steps": _demo_steps(pairs), "cosine": _directions()}


@torch.inference_mode(False)
def _arithmetic() -> dict[str, dict[str, float]]:
    """Of a gradient, in 10¹² multiplications and in evaluations of the U-Net."""
    with FakeTensorMode():  # shapes alone
        unet = UNetModel(**UNET, operations=comfy.ops.disable_weight_init)
        vae, small = AutoencoderKL(ddconfig=SD_VAE, embed_dim=4), TAESD(latent_channels=4)
        classifier = resnet50()
        for network in (unet, vae, small, classifier):
            network.requires_grad_(False)
        evaluation = _multiplications(lambda: unet(torch.empty(1, 4, 64, 64), torch.empty(1), torch.empty(1, 77, 768)))
        gradients = {
            "full": _gradient(vae, classifier, 64), "half": _gradient(vae, classifier, 32),
            "taesd": _gradient(small, classifier, 64),
        }  # fmt: skip
    print(
        f"\nOne gradient at 512 × 512, Stable Diffusion 1.5 and ResNet-50; a U-Net evaluation is {evaluation:.3f} TMAC"
    )
    for name, cost in gradients.items():
        print(
            f"{name:8}{cost:8.3f} TMAC = {cost / evaluation:5.2f} evaluations; every 4th step {cost / evaluation / 4:.2f}"
        )
    return {name: {"TMAC": cost, "evaluations": cost / evaluation} for name, cost in gradients.items()}


def _gradient(vae, classifier, size: int) -> float:
    def run():
        latent = torch.empty(1, 4, size, size, requires_grad=True)
        picture = F.interpolate(vae.decode(latent), size=(224, 224), mode="bilinear", antialias=True)
        classifier(picture).sum().backward()

    return _multiplications(run)


def _multiplications(run) -> float:
    """Multiplications and additions, in units of 10¹²."""
    return flops(run) / 2e12


def _demo_steps(count: int) -> dict[str, dict[str, float]]:
    """For each way of guiding: time of a guided step in unguided ones, those in ms, and peak memory in MiB."""
    plain = _sampling(None)
    plain()
    rows = {"unguided": {"MiB": peak_memory(plain) / 2**20}}
    print(
        f"\nDemo model, 4 pictures, guided / unguided step: median of {count} alternating pairs, and peak memory "
        f"({rows['unguided']['MiB']:.0f} MiB unguided)"
    )
    for decode in ("full", "half"):
        for every in (1, 4):
            guided = _sampling({"decode": decode, "every": every})
            guided()
            pairs = [(seconds(plain), seconds(guided)) for _ in range(count)]
            ratio, step = median(b / a for a, b in pairs), 1000 * median(a for a, _ in pairs) / STEPS
            held = peak_memory(guided) / 2**20
            print(f"{decode:8}every {every}:  time {ratio:6.1f} of {step:.0f} ms,  memory {held:.0f} MiB")
            rows[f"{decode}, every {every}"] = {"time": ratio, "unguided ms": step, "MiB": held}
    return rows


def _sampling(guidance: dict | None):
    """A function that samples four pictures of the demo model."""
    model, clip, vae = run_node("EntropyGuidanceLoadDemo")
    empty = run_node("CLIPTextEncode", clip=clip, text="")[0]
    if guidance is not None:
        model = run_node("EntropyGuidanceApply", model=model, score=_score(), vae=vae, **guidance)[0]
    latent = {"samples": torch.zeros(4, 4, 16, 16)}
    return lambda: nodes.common_ksampler(model, 1, STEPS, 1.0, "euler", "simple", empty, empty, latent)


def _score():
    classifier = run_node("EntropyGuidanceLoadClassifier")[0]
    return run_node("EntropyGuidanceScore", classifier=classifier, labels="blue")[0]


def _directions() -> dict[str, float]:
    """Cosine between the gradients through half and whole pictures, at predictions along a sampling, by noise level."""
    model, clip, vae = run_node("EntropyGuidanceLoadDemo")
    empty = run_node("CLIPTextEncode", clip=clip, text="")[0]
    score_gradient = pack_module("nodes.classifiers.score_gradient").score_gradient
    gradients = {decode: score_gradient(_score(), model, vae, decode) for decode in ("full", "half")}
    print("\nCosine between the gradients through half and whole pictures, 16 pictures (mean)")
    cosines = {}

    def compare(args):
        full, half = (
            gradient(args["input"], args["denoised"], args["sigma"], args["model"])[0].flatten(1)
            for gradient in gradients.values()
        )
        cosine = cosines[f"{args['sigma'][0]:.2f}"] = F.cosine_similarity(full, half).mean().item()
        print(f"noise {args['sigma'][0]:.2f}: {cosine:.3f}")
        return args["denoised"]

    model = model.clone()
    model.set_model_sampler_post_cfg_function(compare)
    latent = {"samples": torch.zeros(16, 4, 16, 16)}
    nodes.common_ksampler(model, 1, 5, 1.0, "euler", "simple", empty, empty, latent)
    return cosines


if __name__ == "__main__":
    results.main("guidance_cost", __doc__, measure)
