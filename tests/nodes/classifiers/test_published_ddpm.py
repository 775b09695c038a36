"""The DDPM sampler against guided-diffusion's own: 250 of 1000 timesteps, with a network and a classifier of a few numbers.

published_ddpm.safetensors holds those numbers, drawn from seed 0, and what guided-diffusion's p_sample made of them in
float32: x_{t−1} after steps 249, 120, and 1 and 0 (of 249..0) from one x with one noise, [3, 2, 3, 4, 4], and x0 of a
whole sampling.
"""

import itertools
from pathlib import Path

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import comfy.supported_models_base
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

from benchmarks import in_process

with safe_open(Path(__file__).with_name("published_ddpm.safetensors"), "pt") as file:
    NUMBERS, METADATA = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()
SCALE = float(METADATA["scale"])
SCHEDULES = {
    "linear": {"beta_schedule": "sqrt_linear", "linear_start": 1e-4, "linear_end": 0.02},
    "cosine": {"beta_schedule": "cosine"},
}
NO_CONDITION = [[torch.zeros(1, 1, 8), {}]]


class Network(torch.nn.Module):
    """ε and v of x_t [B, 3, H, W]."""

    dtype = torch.float32

    def __init__(self, tells: bool = True):
        super().__init__()
        self.weight = torch.nn.Parameter(NUMBERS["network.weight"], requires_grad=False)
        self.time = torch.nn.Parameter(NUMBERS["network.time"], requires_grad=False)
        self.tells = tells

    def forward(self, x, timesteps, context=None, transformer_options={}, **_):
        time = timesteps[:, None, None, None] / 1000
        moved = torch.tanh(F.conv2d(x, self.weight, padding=1) + time * self.time[:, None, None])
        noise, variance = moved.chunk(2, 1)
        if self.tells:
            in_process.pack_module("nodes.classifiers.learned_variance").tell(variance, transformer_options)
        return (1 - torch.exp(-10 * time**2)).sqrt() * x + 0.2 * noise


class Logits(torch.nn.Module):
    """Of x_t [B, 3, 4, 4] at timesteps [B]."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(NUMBERS["classifier.weight"])
        self.time = torch.nn.Parameter(NUMBERS["classifier.time"])

    def forward(self, x, timesteps):
        return torch.tanh(x).flatten(1) @ self.weight.T + timesteps[:, None] / 1000 * self.time


def built(network, schedule="linear", clip=False):
    """A MODEL in pixel space. clip: as Load ADM's clip_denoised."""

    class Config(comfy.supported_models_base.BASE):
        latent_format = comfy.latent_formats.ChromaRadiance
        sampling_settings = SCHEDULES[schedule]

    config = Config({"disable_unet_model_creation": True})
    model = comfy.model_base.BaseModel(config)
    model.diffusion_model = network
    device = comfy.model_management.get_torch_device()
    patcher = comfy.model_patcher.ModelPatcher(model, device, torch.device("cpu"))
    if clip:
        held = in_process.pack_module("nodes.class_conditional.class_model").held_to_pictures
        patcher.set_model_sampler_post_cfg_function(held)
    return patcher


@pytest.fixture
def score(node):
    """score(schedule) is log p(y|x_t) of the classifier alone, for one class of each picture."""

    def plain(schedule="linear"):
        pack = in_process.pack_module
        adm = pack("nodes.classifiers.adm")
        config = adm.AdmConfig(4, 3, 32, 1, (1,), (), len(NUMBERS["classifier.time"]), 32, schedule)
        names = [f"class {number}" for number in range(config.classes)]
        with torch.inference_mode(False):
            module = adm.NoiseAwareClassifier(Logits(), config)
            classifier = pack("nodes.classifiers.guidance_classifier").guidance_classifier("few", module, names)
        return node(
            "EntropyGuidanceScore", classifier=classifier, labels=METADATA["labels"], divergence="none",
            joint_temperature=1.0, marginal_temperature=1.0, softplus_beta=0.0,
        )[0]  # fmt: skip

    return plain


@pytest.fixture
def sampled(node, score):
    """sampled(model, x, sigmas, ...) goes from x = √ᾱ x0 + √(1 − ᾱ) n at the first of the sigmas to the same at the
    last. noises: the noise of each step."""

    def sample(model, x, sigmas, noises=(), schedule="linear", **inputs):
        inputs = {"scale": 0.0, "gamma": 0.0, **inputs}
        sampler = node("EntropyGuidanceDDPMSampler", score=score(schedule), **inputs)[0]
        left = iter(noises)
        options = {"noise_sampler": lambda sigma, following: next(left).to(sigma.device)}
        sampler = comfy.samplers.KSAMPLER(sampler.sampler_function, options)
        latent = {"samples": x * (1 + sigmas[0].square()).sqrt()}
        output = node(
            "SamplerCustom", model=model, add_noise=False, noise_seed=0, cfg=1.0, positive=NO_CONDITION,
            negative=NO_CONDITION, sampler=sampler, sigmas=sigmas, latent_image=latent,
        )[0]["samples"]  # fmt: skip
        return output / (1 + sigmas[-1].square()).sqrt()

    return sample


def respaced(model) -> torch.Tensor:
    """guided-diffusion's 250 timesteps as noise levels, and the clean picture's."""
    return F.pad(model.get_model_object("model_sampling").sigmas[NUMBERS["timesteps"]], (0, 1))


STEPS = [slice(0, 2), slice(129, 131), slice(248, 251)]  # of the 251 noise levels
CASES = [key for key in NUMBERS if key.count(".") == 3]


@pytest.mark.parametrize("case", CASES)
def test_steps_are_guided_diffusion_s(sampled, case):
    schedule, variance, clip, guidance = case.split(".")
    options = {
        "variance": variance,
        "scale": SCALE if guidance == "guided" else 0.0,
    }
    model = built(Network(), schedule, clip == "clipped")
    for place, expected in zip(STEPS, NUMBERS[case], strict=True):
        noises = itertools.repeat(NUMBERS["noise"])
        x = sampled(model, NUMBERS["x"], respaced(model)[place], noises, schedule, **options)
        torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_whole_sampling_is_guided_diffusion_s(sampled, schedule):
    model, noise = built(Network(), schedule, clip=True), NUMBERS["noise"]
    noises = [noise.flatten(1).roll(step, 1).view_as(noise) for step in range(249, -1, -1)]
    x = sampled(model, NUMBERS["x"], respaced(model), noises, schedule, variance="learned", scale=SCALE)
    torch.testing.assert_close(x, NUMBERS[f"{schedule}.whole"], rtol=1e-4, atol=1e-4)


def test_models_without_a_variance_of_their_own_are_refused(sampled):
    model = built(Network(tells=False))
    with pytest.raises(ValueError, match="'learned': the model told no variance. Choose 'small' or 'large'"):
        sampled(model, NUMBERS["x"], respaced(model)[:2], variance="learned")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_scheduler_normal_has_the_timesteps(node, schedule):
    model = built(Network(), schedule)
    sigmas = node("BasicScheduler", model=model, scheduler="normal", steps=250, denoise=1.0)[0]
    assert torch.equal(model.get_model_object("model_sampling").timestep(sigmas[:-1]), NUMBERS["timesteps"].long())
    torch.testing.assert_close(sigmas, respaced(model), rtol=0.005, atol=0.0)


def test_manual_sigmas_are_the_very_noise_levels(node):
    exact = respaced(built(Network()))
    assert torch.equal(node("ManualSigmas", sigmas=", ".join(f"{sigma:.9g}" for sigma in exact.tolist()))[0], exact)
