"""The DDPM sampler with the variance that a network of guided-diffusion's layout has learned."""

import folder_paths
import pytest
import torch
from comfy.k_diffusion.sampling import default_noise_sampler
from safetensors.torch import save_file

from benchmarks import in_process
from benchmarks.tolerance import assert_agree

NAME = "32x32_diffusion.safetensors"
STEP = [700, 100]  # timesteps, far apart: the bounds of the variance are, too
X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(5))  # √ᾱ x0 + √(1 − ᾱ) n


@pytest.fixture(scope="module")
def adm(node, tmp_path_factory):
    """Random weights in the published layout: as many classes as the demo's classifier knows, and the null class."""
    module = in_process.pack_module("nodes.class_conditional.adm_unet")
    torch.manual_seed(0)
    with torch.inference_mode(False):
        network = module.AdmUNet(module.AdmShape(32, 1, (1, 1), (1,), classes=7, head_channels=32))
        for weight in network.parameters():
            weight.data += 0.05 * torch.randn_like(weight)
        network.label_emb.weight.data *= 3
    folder = tmp_path_factory.mktemp("adm")
    metadata = {"num_head_channels": "32", "labels": '["a", "b", "c", "d", "e", "f"]'}
    save_file(network.state_dict(), folder / NAME, metadata)
    folder_paths.add_model_folder_path("diffusion_models", str(folder))
    yield node("EntropyGuidanceLoadADM", model_name=NAME)[0]
    folder_paths.folder_names_and_paths["diffusion_models"][0].remove(str(folder))


@pytest.fixture
def classes(node, adm):
    """CONDITIONING of class b, and of the null class."""
    return node("EntropyGuidanceClassCondition", model=adm, labels="b")


@pytest.fixture
def ddpm(node):
    """The sampler without guidance."""
    score = node(
        "EntropyGuidanceScore",
        classifier=node("EntropyGuidanceLoadClassifier", classifier_name="entropy-guidance-demo")[0],
        labels="blue",
    )[0]
    return node("EntropyGuidanceDDPMSampler", score=score, scale=0.0, variance="learned")[0]


@pytest.fixture
def stepped(node, adm, ddpm, classes):
    """stepped(seed, ...) is X after a step, whose noise the seed makes."""

    def sample(seed, model=adm, positive=classes[0], negative=classes[1], cfg=3.0):
        sigmas = model.get_model_object("model_sampling").sigmas[STEP]
        latent = {"samples": X * (1 + sigmas[0].square()).sqrt()}
        return node(
            "SamplerCustom", model=model, add_noise=False, noise_seed=seed, cfg=cfg, positive=positive, negative=negative,
            sampler=ddpm, sigmas=sigmas, latent_image=latent,
        )[0]["samples"] / (1 + sigmas[-1].square()).sqrt()  # fmt: skip

    return sample


def key() -> str:
    return in_process.pack_module("nodes.classifiers.learned_variance").KEY


class Taker:
    def take(self, values, _options):
        self.values = values


def spread_of(model, condition) -> torch.Tensor:
    """√Σ of the step, from the network's own word alone."""
    taker, variance = Taker(), in_process.pack_module("guidance_core.ddpm_variance")
    kept = 1 / (1 + model.get_model_object("model_sampling").sigmas[STEP].double().square())
    context, timesteps = condition[0][0].expand(2, -1, -1), torch.full((2,), float(STEP[0]))
    model.model.diffusion_model(X, timesteps, context=context, transformer_options={key(): taker})
    low, high = (bound.log().float() for bound in variance.variance_bounds(kept, 1 - kept))
    return (variance.learned_log_variance(taker.values, low, high) / 2).exp()


def noise_of(seed: int) -> torch.Tensor:
    return default_noise_sampler(X, seed=seed)(None, None)


def split_for_memory(node, model):
    model = model.clone()
    model.add_object_patch("memory_required", lambda *_, **__: 1e30)
    return model


def with_own_branch(node, model):
    return node("EntropyGuidanceERG", model=model, scale=2.0, layers="all")[0]


def with_own_branch_split_for_memory(node, model):
    return split_for_memory(node, with_own_branch(node, model))


def with_a_patched_pass(node, model):
    return node("PerturbedAttentionGuidance", model=model, scale=2.0)[0]


CHANGES = [None, split_for_memory, with_own_branch, with_own_branch_split_for_memory, with_a_patched_pass]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__ if change else "plain")
def test_noise_has_the_positive_condition_s_variance(node, adm, stepped, classes, change):
    model = change(node, adm) if change else adm
    ours = stepped(1, model) - stepped(2, model)
    expected, other = (spread_of(adm, condition) * (noise_of(1) - noise_of(2)) for condition in classes)
    assert_agree(ours, expected)
    assert (expected - other).abs().max() > 0.01 * expected.abs().max()
    assert key() not in model.model_options["transformer_options"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_noise_levels_of_any_number_format(node, adm, ddpm, classes, dtype):
    sigmas = adm.get_model_object("model_sampling").sigmas[STEP].bfloat16()
    drawn = [
        node(
            "SamplerCustom", model=adm, add_noise=False, noise_seed=1, cfg=1.0, positive=classes[0], negative=classes[1],
            sampler=ddpm, sigmas=sigmas.to(of), latent_image={"samples": X},
        )[0]["samples"]
        for of in (torch.float32, dtype)
    ]  # fmt: skip
    assert_agree(*drawn)


def half(node, condition):
    return node("ConditioningSetArea", conditioning=condition, width=64, height=128, x=0, y=0, strength=1.0)[0]


def twice(node, condition):
    return node("ConditioningCombine", conditioning_1=condition, conditioning_2=condition)[0]


@pytest.mark.parametrize("change", [half, twice])
def test_conditions_for_parts_are_refused(node, stepped, classes, change):
    with pytest.raises(ValueError, match="'learned' needs a single positive condition over the whole picture"):
        stepped(1, positive=change(node, classes[0]))
