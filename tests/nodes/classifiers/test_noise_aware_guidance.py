"""Guidance by classifiers that read the noisy latents themselves, as Dhariwal & Nichol have it."""

import comfy.model_management
import folder_paths
import pytest
import torch
from comfy.samplers import CFGGuider, KSamplerX0Inpaint
from safetensors.torch import save_file

from benchmarks import in_process, random_models
from benchmarks.tolerance import assert_agree

NAME = "16x16_classifier.safetensors"


@pytest.fixture(scope="module")
def classifier(node, tmp_path_factory):
    """Random weights in the published layout, of the demo model's latents and noise."""
    adm = in_process.pack_module("nodes.classifiers.adm")
    config = adm.AdmConfig(
        image_size=16, in_channels=4, width=32, depth=1, multipliers=(1, 1), attention_levels=(1,), classes=3,
        head_channels=32, schedule="flow",
    )  # fmt: skip
    torch.manual_seed(0)
    network = adm.AdmEncoder(config)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    folder = tmp_path_factory.mktemp("noise-aware")
    save_file(network.state_dict(), folder / NAME, adm.metadata_of(config, ["a", "b", "c"]))
    folder_paths.add_model_folder_path("classifiers", str(folder))
    yield node("EntropyGuidanceLoadClassifier", classifier_name=NAME)[0]
    folder_paths.folder_names_and_paths["classifiers"][0].remove(str(folder))


@pytest.fixture
def score(node, classifier):
    return node("EntropyGuidanceScore", classifier=classifier, labels="b", divergence="none", marginal_temperature=1.0)[
        0
    ]


@pytest.fixture
def guide(node, demo, score):
    def guided(model=None, **inputs):
        inputs = {"scale": 0.5, "every": 1, "normalize": False, **inputs}
        return node("EntropyGuidanceApply", model=model or demo[0], score=score, **inputs)[0]

    return guided


def slope(classifier, x, sigma):
    """∇_x log p(b | x, σ) of a flow model's x, by autograd through the network alone."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = x.clone().requires_grad_()
        log_p = classifier.patcher.model.network(leaf, 1000 * sigma).log_softmax(-1)[:, 1]
        return torch.autograd.grad(log_p.sum(), leaf)[0]


def spying():
    """A list, and a function for a sampling that appends what it sees to it."""
    seen = []

    def spy(args):
        seen.append({key: args[key].clone() for key in ("denoised", "input", "sigma")})
        return args["denoised"]

    return seen, spy


@pytest.mark.parametrize("sigma", [0.3, 0.6, 0.9])
def test_prediction_moves_along_the_gradient_at_x(node, demo, guide, classifier, prompts, sigma):
    """In one step: with random weights slopes are small, and a scale that shows them carries a sampling away."""
    seen, spy = spying()
    before = demo[0].clone()
    before.set_model_sampler_post_cfg_function(spy)
    scale = 1e5 / (sigma**2 / (1 - sigma))
    _, predicted = node(
        "SamplerCustom", model=guide(before, scale=scale), add_noise=True, noise_seed=0, cfg=1.0, positive=prompts[0],
        negative=prompts[1], sampler=node("KSamplerSelect", sampler_name="euler")[0], sigmas=torch.tensor([sigma, 0.0]),
        latent_image={"samples": torch.zeros(2, 4, 16, 16)},
    )  # fmt: skip
    (plain,), moved = seen, demo[0].model.process_latent_in(predicted["samples"])
    expected = 1e5 * slope(classifier, plain["input"], plain["sigma"])
    assert expected.abs().max() > 0.1 * plain["denoised"].abs().max()
    assert_agree(moved, plain["denoised"] + expected)


def test_decode_is_one_of_the_choices_even_where_nothing_is_decoded(guide):
    with pytest.raises(ValueError, match="decode = 'tiny': it must be one of auto, full, half, taesd"):
        guide(decode="tiny")


def test_ddpm_moves_its_mean_along_the_gradient_in_its_own_scale(demo, score, classifier):
    ddpm = in_process.pack_module("nodes.classifiers.guided_ddpm")
    gradient = in_process.pack_module("nodes.classifiers.score_gradient").score_gradient(score, demo[0], None)
    sampler = ddpm.GuidedDDPM(score, 2.0, 0.3, 0.0, None)
    x, sigma = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor(0.6)
    factor = (0.4**2 + 0.6**2) ** -0.5  # what brings x to √ᾱ x0 + √(1 − ᾱ) n
    model = KSamplerX0Inpaint(CFGGuider(demo[0]), torch.tensor([0.6, 0.0]))  # what ComfyUI gives to samplers
    pull = sampler._pull(gradient, model, x, x, sigma, torch.tensor(factor), {})
    assert_agree(pull, 2 * slope(classifier, x, sigma.expand(2)) / factor)


def test_leads_to_the_class(demo, guide, classifier, prompts, sample):
    def sureness(model):
        latents = demo[0].model.process_latent_in(sample(model, *prompts, batch=4, cfg=1.0, steps=6))
        return classifier.patcher.model(latents, torch.ones(4)).softmax(-1)[:, 1].mean()

    assert sureness(guide(normalize=True, scale=0.5)) > sureness(demo[0])


def test_models_of_another_space_are_refused(guide):
    with pytest.raises(ValueError, match="reads 4 channels, but the model's latents have 16"):
        guide(random_models.build("SD3"))


def test_latents_of_another_size_are_refused(guide, prompts, sample):
    with pytest.raises(ValueError, match="reads 4 channels of 16 × 16, and what is sampled has 4 × 24 × 16"):
        sample(guide(), *prompts, cfg=1.0, latent={"samples": torch.zeros(1, 4, 24, 16)})


def test_classifiers_that_resize_stay_off_apples_gpus(node, classifier, monkeypatch):
    """The clean ones do, for which PyTorch has no gradient there; this one reads latents as they are."""
    module = in_process.pack_module("nodes.classifiers.guidance_classifier")
    monkeypatch.setattr(comfy.model_management, "get_torch_device", lambda: torch.device("mps"))
    (clean,) = node("EntropyGuidanceLoadClassifier", classifier_name="entropy-guidance-demo")
    with torch.inference_mode(False):
        again = [module.guidance_classifier("again", of.patcher.model, of.labels) for of in (clean, classifier)]
    assert [of.patcher.load_device.type for of in again] == ["cpu", "mps"]
