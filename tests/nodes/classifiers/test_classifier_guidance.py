"""Classifier guidance in a real ComfyUI, with the demo model and its classifier."""

import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers
import comfy.sd
import folder_paths
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from safetensors.torch import save_file

import nodes
from benchmarks import in_process, random_models, small_networks
from benchmarks.step_cost import peak_memory
from benchmarks.tolerance import agree, assert_agree
from tests.nodes.attention.test_execution_modes import on_two_devices

WANTED = "blue"


@pytest.fixture(scope="module")
def classifier(node):
    return node("EntropyGuidanceLoadClassifier", classifier_name="entropy-guidance-demo")[0]


@pytest.fixture
def empty(demo, encode):
    return encode(demo[1], "")


@pytest.fixture
def guide(node, demo, classifier):
    """guide(labels=..., scale=..., ...) gives the demo model under guidance; inputs go to the node that has them."""

    def guided(model=None, labels=WANTED, score=None, vae=demo[2], **inputs):
        formula = {key: inputs.pop(key) for key in tuple(inputs) if key in FORMULA}
        inputs = {"scale": 0.2, "every": 1, **inputs}
        score = score or node("EntropyGuidanceScore", classifier=classifier, labels=labels, **formula)[0]
        return node("EntropyGuidanceApply", model=model or demo[0], score=score, vae=vae, **inputs)[0]

    return guided


FORMULA = (
    "divergence", "divergence_weight", "target_confidence", "joint_temperature", "marginal_temperature",
    "entropy_weight", "softplus_beta",
)  # fmt: skip


SMALL = 8  # a latent's side: a quarter of the demo model's picture, where it need not show anything
ONE_LATENT = torch.zeros(1, 4, SMALL, SMALL)


@pytest.fixture
def draw(demo, empty, sample):
    """draw(model, batch) gives latents without prompt and CFG."""

    def drawn(model, batch=4, steps=6, side=SMALL, **options):
        latent = {"samples": torch.zeros(batch, 4, side, side)}
        return sample(model, empty, empty, cfg=1.0, steps=steps, latent=latent, **options)

    return drawn


@pytest.fixture
def probabilities(demo, classifier):
    """p(class | picture) [B] of latents, by the classifier."""

    def measured(latents, label=WANTED):
        pictures = demo[2].decode(latents).movedim(-1, 1)
        return classifier.patcher.model(pictures).softmax(-1)[:, classifier.labels.index(label)]

    return measured


@pytest.mark.parametrize("divergence", ["none", "reverse_kl", "forward_kl", "jensen_shannon"])
def test_every_divergence_leads_to_the_class(demo, guide, draw, probabilities, divergence):
    model = guide(divergence=divergence, scale=0.4, every=3)
    before, after = (probabilities(draw(model, 4, steps=12, side=16)) for model in (demo[0], model))
    assert after.mean() > before.mean() + 0.2
    assert (after > 0.5).sum() > (before > 0.5).sum()


def noise_prediction(node, model):
    return model


def v_prediction(node, model):
    return node("ModelSamplingDiscrete", model=model, sampling="v_prediction", zsnr=False)[0]


def edm(node, model):
    return node("ModelSamplingContinuousEDM", model=model, sampling="edm", sigma_max=80.0, sigma_min=0.002)[0]


@pytest.mark.parametrize("kind", [noise_prediction, v_prediction, edm])
def test_models_that_add_noise_move_by_its_square(node, guide, sample, kind):
    model = kind(node, random_models.build("SD15"))
    guided, seen = watched(guide, model, normalize=False, scale=0.01)
    sample(guided, *random_models.conditions(), cfg=1.0, batch=2, steps=2)
    gradient = gradient_of(guided)
    for sigma, plain, moved in seen:
        slope, _ = gradient(plain, plain, sigma, guided.model)
        assert slope.abs().amax() > 0
        assert_agree(moved - plain, 0.01 * sigma.square()[:, None, None, None] * slope)


@pytest.mark.parametrize("name", ["SD15", "SD3", "CosmosT2IPredict2"])
def test_how_noise_is_added(node, name):
    """As ComfyUI adds it to a latent."""
    is_flow = in_process.pack_module("nodes.classifiers.score_gradient").is_flow
    sampling = small_networks.build(name).get_model_object("model_sampling")
    x0, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.3])
    kept = 1 - sigma if is_flow(sampling) else 1
    assert_agree(sampling.noise_scaling(sigma, noise.clone(), x0), kept * x0 + sigma * noise)


def test_a_model_of_another_prediction_is_named(guide):
    with pytest.raises(
        RuntimeError, match="model: classifier guidance needs one of .*, and V_PREDICTION_DDPM is none of them"
    ):
        guide(small_networks.build("CogVideoX_T2V"))


def test_what_sees_the_picture_is_loaded_with_the_model(guide, sample):
    model, loaded = random_models.build("SD15"), []
    guided = guide(model)
    management = comfy.model_management
    management.unload_all_models()

    def look(executor, *args):
        loaded.append(management.loaded_models())
        return executor(*args)

    guided.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "look", look)
    sample(guided, *random_models.conditions(), steps=2)
    patchers = gradient_of(guided).patchers
    assert len(patchers) == 2 and all(patcher in found for found in loaded for patcher in patchers)
    assert "registered_hooks" not in guided.model_options


def test_a_pack_that_samples_twice_at_once_is_guided_as_often(guide, sample):
    """As AnimateDiff-Evolved does: a wrapper that has the rest of a sampling done several times."""
    latents = torch.zeros(1, 4, SMALL, SMALL)

    def both(executor, *args, **kwargs):
        first = executor(*args, **kwargs)
        drawn.append((first, executor(*args, **kwargs)))
        return first

    drawn, model = [], random_models.build("SD15")
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "another pack", both)
    sample(guide(model), *random_models.conditions(), steps=2, latent={"samples": latents})
    assert torch.equal(*drawn[0])


@pytest.mark.parametrize("order", ["before", "after"])
def test_several_devices(guide, sample, order):
    """ComfyUI copies a model's additional ones to each, which needs to know how they are loaded; a classifier stays on one."""
    model = random_models.build("SD15")
    model.cached_patcher_init = (random_models.build, ("SD15",))

    def draw(model):
        return sample(model, *random_models.conditions(), steps=1)

    guided = on_two_devices(guide(model)) if order == "before" else guide(on_two_devices(model))
    moved, expected = (draw(m) - draw(model) for m in (guided, guide(model)))
    assert expected.any()
    # The prediction is rounded otherwise, which kinks of a classifier that sees a random network's pictures enlarge.
    assert torch.cosine_similarity(moved.flatten(1), expected.flatten(1)).min() > 0.99
    assert moved.norm() == pytest.approx(expected.norm().item(), rel=0.05)


def test_a_latent_of_odd_sides_is_halved_as_one_of_even_ones(demo, guide):
    """Whatever a device makes of a resize by area: the last row and column are left out."""
    decoder = gradient_of(guide(decode="half")).decoder
    seen, x0 = [], torch.randn(1, 4, 17, 16, generator=torch.Generator().manual_seed(0))
    latent = decoder.latent.process_out(x0)[:, :, :16]
    decoder.images(lambda module, halved: seen.append(halved) or torch.zeros(1, 3, 64, 64), x0)
    torch.testing.assert_close(seen[0], torch.nn.functional.interpolate(latent, scale_factor=0.5, mode="area"))
    assert decoder.size_of(torch.zeros(1, 3, 17 * 8, 16 * 8)) == (64, 64)


def test_a_decoder_s_transparency_is_left_out(guide):
    decoder = gradient_of(guide(decode="full")).decoder
    four = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    shown = decoder.images(lambda module, latent: four, torch.zeros(1, 4, SMALL, SMALL))
    assert torch.equal(shown, decoder.scale * four[:, :3] + decoder.shift)


def test_a_small_gradient_comes_through_half_precision(classifier):
    """A sure classifier's slope of its logits is less than half precision can hold."""
    weights = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    slope = 1e-9 * torch.tensor([[3.0, -1.0, -1.0, -0.5, -0.5, 0.0]])
    formula = SimpleNamespace(logit_gradient=lambda logits, labels: slope)
    score = SimpleNamespace(classifier=classifier, formula=formula, softplus_beta=0.0)
    decoder = SimpleNamespace(images=lambda call, x0: x0)
    gradient = in_process.pack_module("nodes.classifiers.score_gradient").ScoreGradient(score, decoder)
    with torch.inference_mode(False):
        of_inputs = weights.clone().half()
        gradient._call = lambda module, pictures: (pictures.mean((2, 3)).half() @ of_inputs).float()
        found, _ = gradient._gradient(torch.zeros(1, 3, 2, 2), torch.tensor([0.5]), torch.tensor([0]), None)
    torch.testing.assert_close(found[0, :, 0, 0], (slope @ weights.T)[0] / 4, rtol=5e-3, atol=0)


def test_a_preview_decoder_of_other_latents_is_not_used(demo, guide, tmp_path):
    """Playground 2.5's are scaled otherwise than those that SDXL's small decoder reads."""
    save_file({}, tmp_path / "taesdxl_decoder.safetensors")
    folder_paths.add_model_folder_path("vae_approx", str(tmp_path))
    try:
        found = in_process.pack_module("nodes.classifiers.latent_decoder")._preview_decoder
        assert found(comfy.latent_formats.SDXL()) and not found(comfy.latent_formats.SDXL_Playground_2_5())
    finally:
        folder_paths.folder_names_and_paths["vae_approx"][0].remove(str(tmp_path))


def test_a_preview_decoder_is_used_where_there_is_one(demo, guide, sample, tmp_path):
    """The demo's decoder in the place of Stable Diffusion 1.5's TAESD."""
    network = demo[2].first_stage_model
    save_file(network.taesd_decoder.state_dict(), tmp_path / "taesd_decoder.safetensors")
    folder_paths.add_model_folder_path("vae_approx", str(tmp_path))
    try:
        model = random_models.build("SD15")
        guided = guide(model)
        decoder = gradient_of(guided).decoder
        fingerprint = nodes.NODE_CLASS_MAPPINGS["EntropyGuidanceApply"].fingerprint_inputs
        assert "taesd_decoder.safetensors" in fingerprint(decode="auto")
        assert fingerprint(decode=None) == fingerprint(decode="taesd") == fingerprint(decode="auto")  # None: linked
        assert fingerprint(decode="full") == []
        x0 = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        assert decoder.mode == "taesd"
        held = peak_memory(lambda: decoder.decode(x0[:1]))
        assert 0.5 * decoder.memory_of(x0) < held <= decoder.memory_of(x0), (
            "so that as many as fit are looked at at once"
        )
        images = decoder.images(lambda module, *inputs: module(*inputs), x0)
        assert_agree(images, network.taesd_decoder(x0))
        drawn = [sample(m, *random_models.conditions(), steps=2) for m in (model, guided)]
        assert not torch.equal(*drawn) and drawn[1].isfinite().all()
    finally:
        folder_paths.folder_names_and_paths["vae_approx"][0].remove(str(tmp_path))
        folder_paths.filename_list_cache.pop("vae_approx", None)


def test_gradients_through_stable_diffusion_s_vae(guide, classifier):
    """ComfyUI's AutoencoderKL with random weights, of full width: along the gradient itself."""
    vae = random_models.autoencoder_kl()
    guided = guide(random_models.build("SD15"), vae=vae, divergence="none", softplus_beta=30.0)
    decoder = gradient_of(guided).decoder
    assert decoder.mode == "half"
    x0 = 0.1 * torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    value, _ = gradient_at(guided, x0)
    direction = value / value.norm()

    def score(latent):
        logits = gradient_of(guided)._classify(decoder.images(lambda module, *inputs: module(*inputs), latent))
        return gradient_of(guided).score.formula.value(logits.double(), torch.tensor([classifier.labels.index(WANTED)]))

    step = 1e-3
    slope = (score(x0 + step * direction) - score(x0 - step * direction)) / (2 * step)
    torch.testing.assert_close(slope.float(), value.norm()[None], rtol=0.1, atol=0.0)


def test_pixel_space_models_need_no_vae(guide, sample, probabilities):
    model = random_models.build("SD15", in_channels=3, out_channels=3)
    model.model.latent_format = comfy.latent_formats.ChromaRadiance()
    guided, seen = watched(guide, model, vae=None, scale=0.3)
    sample(guided, *random_models.conditions(), cfg=1.0, steps=2, latent={"samples": torch.zeros(2, 3, 32, 32)})
    assert all(not torch.equal(plain, moved) and moved.isfinite().all() for _, plain, moved in seen)


def watched(guide, model, **inputs):
    """A guided model, and a list that its sampling fills with (sigma, prediction, prediction after guidance)."""
    seen = []

    def before(args):
        seen.append((args["sigma"].clone(), args["denoised"].clone()))
        return args["denoised"]

    def after(executor, *args):
        moved = executor(*args)
        seen[-1] += (moved.clone(),)
        return moved

    model = model.clone()
    model.set_model_sampler_post_cfg_function(before)
    guided = guide(model, **inputs)
    guided.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "watch", after)
    return guided, seen


def test_two_nodes_in_a_row_each_move_the_prediction(guide, sample):
    """The second one from where the first has left it, towards a class of its own."""
    inputs, model = {"normalize": False, "scale": 0.01}, random_models.build("SD15")
    both, seen = watched(guide, guide(model, labels="red", **inputs), labels="blue", **inputs)
    sample(both, *random_models.conditions(), cfg=1.0, steps=1)
    ((sigma, moved, after),) = seen
    for label in ("red", "blue"):
        slope, _ = gradient_of(guide(model, labels=label))(moved, moved, sigma, model.model)
        assert slope.abs().amax() > 0
        moved = moved + 0.01 * sigma.square()[:, None, None, None] * slope
    assert_agree(after, moved)


def dual_cfg(node, cfg1, cfg2, style="regular"):
    def guider(model, positive, middle, negative):
        return node(
            "DualCFGGuider", model=model, cond1=positive, cond2=middle, negative=negative, cfg_conds=cfg1,
            cfg_cond2_negative=cfg2, style=style,
        )[0]  # fmt: skip

    return guider


def erg_guider(node):
    def guider(model, positive, weak, negative):
        return node(
            "EntropyGuidanceGuider",
            model=model,
            positive=positive,
            weak=weak,
            negative=negative,
            scale=2.0,
            negative_scale=2.0,
        )[0]

    return guider


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [(dual_cfg, (1.0, 1.0)), (dual_cfg, (3.0, 2.0)), (dual_cfg, (3.0, 2.0, "nested")), (erg_guider, ())],
)
def test_a_guider_that_adds_to_its_prediction_is_judged_by_all_of_it(node, demo, guide, encode, kind, inputs):
    """They call functions for CFG with a part of what they predict, which for DualCFGGuider at scales of 1 is nothing."""
    positive, middle, empty = (encode(demo[1], text) for text in ("a red circle", "a circle", ""))
    seen = []

    def spy(executor, *args):
        seen.append((args[1].clone(), executor(*args).clone()))
        return seen[-1][1]

    def draw(model):
        model = model.clone()
        model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "spy", spy)
        guider = kind(node, *inputs)(model, positive, middle, empty)
        node(
            "SamplerCustomAdvanced", noise=node("RandomNoise", noise_seed=0)[0], guider=guider,
            sampler=node("KSamplerSelect", sampler_name="euler")[0], sigmas=torch.tensor([0.6, 0.0]),
            latent_image={"samples": ONE_LATENT},
        )  # fmt: skip

    guided = guide(scale=0.25)
    draw(demo[0])
    draw(guided)
    (sigma, plain), (_, moved) = seen
    slope, _ = gradient_of(guided)(plain, plain, sigma, demo[0].model)
    expected = 0.25 * 0.6 * plain.square().mean().sqrt() * slope / slope.square().mean().sqrt()
    assert_agree(moved - plain, expected)


def test_zero_scale_is_no_node(demo, guide, draw):
    assert torch.equal(draw(demo[0]), draw(guide(scale=0.0)))


def test_the_model_that_went_in_stays_as_it_was(demo, guide, draw):
    other, before = demo[0].clone(), draw(demo[0])
    assert not torch.equal(before, draw(guide()))
    assert torch.equal(before, draw(demo[0])) and torch.equal(before, draw(other))


def test_a_class_for_each_image(demo, guide):
    """In a batch of mixed labels, each image gets the gradient that it would get alone."""
    names = ("red", "green", "blue")
    x0 = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    together, log_p = gradient_at(in_float64(guide(labels="\n".join(names))), x0)
    for i, name in enumerate(names):
        alone, log_p_alone = gradient_at(in_float64(guide(labels=name)), x0[i : i + 1])
        assert_agree(together[i], alone[0])
        assert_agree(log_p[i], log_p_alone[0])


def test_a_guided_sampling_agrees_with_its_parts(demo, empty, guide, sample):
    """Picture by picture, each with its noise in the batch."""

    def draw(model, *numbers):
        latent = {"samples": torch.zeros(len(numbers), 4, SMALL, SMALL), "batch_index": [*numbers]}
        return sample(model, empty, empty, cfg=1.0, steps=3, latent=latent)

    model = in_float64(guide())
    together = draw(model, 0, 1, 2)
    for number in range(3):
        assert_agree(draw(model, number), together[number : number + 1])
    assert not torch.equal(together, draw(demo[0], 0, 1, 2))


@pytest.mark.parametrize("softplus_beta", [0.0, 3.0])
@pytest.mark.parametrize("decode", ["full", "half"])
def test_gradients_agree_with_finite_differences(demo, guide, classifier, decode, softplus_beta):
    """Through VAE, preprocessing and classifier: along the gradient itself, and along signs at random, where a part that is cut
    off is missed. In float64, where points can be so near to each other that hardly a kink of a ReLU is between them."""
    model = in_float64(guide(divergence="reverse_kl", decode=decode, softplus_beta=softplus_beta))
    gradient = gradient_of(model)
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(2, 4, 16, 16, generator=generator)
    value, _ = gradient(x0, x0, torch.ones(2), demo[0].model)
    signs = torch.randint(0, 2, (8, *x0.shape), generator=generator) * 2.0 - 1
    wanted = torch.tensor([classifier.labels.index(WANTED)] * 2)

    def score(latent):
        images = gradient.decoder.images(lambda module, *inputs: module(*inputs), latent)
        return gradient.score.formula.value(gradient._classify(images).double(), wanted)

    def slope(direction, step):
        return (score(x0 + step * direction) - score(x0 - step * direction)) / (2 * step)

    size = value.flatten(1).norm(dim=1)
    along = slope(value / size[:, None, None, None], 1e-2)
    torch.testing.assert_close(along, size.double(), rtol=0.05, atol=0)
    missed = torch.stack([slope(sign, 1e-3) - (value * sign).flatten(1).sum(1) for sign in signs])
    # Without one of four channels it would be half of the gradient's size.
    assert (missed.square().mean(0).sqrt() < 0.2 * size).all()


def gradient_of(model):
    """The ScoreGradient that a guided model carries."""
    (*_, sample) = model.get_wrappers(WrappersMP.OUTER_SAMPLE, "entropy_guidance_apply")
    return sample.__self__.gradient


def in_float64(model):
    """The model, with a decoder and a classifier of its own in float64, for batches of other sizes and other kernels.

    The slope of a ReLU jumps. In float32 some activation is always so near to 0 that another order of summation takes it
    to the other side, and a whole patch of the gradient with it; in float64 none is.
    """
    gradient = gradient_of(model)
    decoder, classifier = gradient.decoder, gradient.score.classifier
    decode, module = copy.deepcopy((decoder.decode, classifier.patcher.model))
    patcher = comfy.model_patcher.ModelPatcher(module.double(), torch.device("cpu"), torch.device("cpu"))
    gradient.decoder = replace(decoder, decode=decode.double(), dtype=torch.float64)
    gradient.score = replace(gradient.score, classifier=replace(classifier, patcher=patcher))
    return model


def gradient_at(model, x0):
    """∇S at predictions, and log p."""
    return gradient_of(model)(x0, x0, torch.ones(len(x0)), model.model)


def test_half_resolution_points_where_the_full_one_does(demo, guide):
    x0 = torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    full, half = (gradient_at(guide(decode=mode), x0)[0].flatten(1) for mode in ("full", "half"))
    assert torch.nn.functional.cosine_similarity(full, half).mean() > 0


def test_weights_loaded_in_inference_mode(node, guide, demo, draw):
    """What ComfyUI's executor gives a node: a VAE and a classifier whose weights autograd would refuse."""
    vae = node("EntropyGuidanceLoadDemo")[2]
    for parameter in vae.first_stage_model.parameters():
        parameter.data = parameter.data.clone()
    assert next(vae.first_stage_model.parameters()).is_inference()
    assert_agree(draw(guide(vae=vae)), draw(guide()))


def test_normalized_guidance_moves_by_a_share_of_the_picture_s_root_mean_square(demo, guide, empty, sample):
    guided, seen = watched(guide, demo[0], scale=0.25)
    sample(guided, empty, empty, cfg=1.0, steps=3, batch=2)
    for (_, plain, moved), share in zip(seen, (1, 2 / 3, 1 / 3)):
        moved_by, size = (t.square().mean((1, 2, 3)).sqrt() for t in (moved - plain, plain))
        assert_agree(moved_by, 0.25 * share * size)


def test_tilt_spreads_the_strength_over_the_batch(guide, draw):
    plain, tilted = draw(guide(tilt=0.0)), draw(guide(tilt=-5.0))
    assert not torch.equal(plain, tilted)
    assert torch.equal(draw(guide(tilt=0.0), 1), draw(guide(tilt=-5.0), 1))


def test_tilt_guides_those_more_that_do_not_show_their_class(demo, guide, empty, sample):
    guided, seen = watched(guide, demo[0], tilt=-5.0, scale=0.25)
    sample(guided, empty, empty, cfg=1.0, steps=1, batch=4)
    ((sigma, plain, moved),) = seen
    _, log_p = gradient_of(guided)(plain, plain, sigma, demo[0].model)
    shares = [t.square().mean((1, 2, 3)).sqrt() for t in (moved - plain, plain)]
    assert log_p.max() - log_p.min() > 0.1
    assert_agree(shares[0], 0.25 * shares[1] * 4 * (-5 * log_p).softmax(0))


def test_the_score_has_the_inputs_of_its_node(node, classifier):
    inputs = {
        "divergence": "reverse_kl", "divergence_weight": 0.3, "target_confidence": 0.7, "joint_temperature": 1.1,
        "marginal_temperature": 0.6, "entropy_weight": 0.2,
    }  # fmt: skip
    score = node("EntropyGuidanceScore", classifier=classifier, labels="red", softplus_beta=4.0, **inputs)[0]
    assert vars(score.formula) == inputs and score.softplus_beta == 4.0


def test_what_auto_decodes_with_and_whether_kinks_are_smoothed(guide):
    assert gradient_of(guide()).decoder.mode == "full"  # the demo's own decoder is small
    x0 = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert not agree(*(gradient_at(guide(softplus_beta=beta), x0)[0] for beta in (0.0, 3.0)))


def evaluations(guide, draw, **inputs) -> int:
    """How often a sampling of eight steps asks for the gradient."""
    model, count = guide(**inputs), 0
    gradient = gradient_of(model)

    def counted(images):
        nonlocal count
        count += 1
        return images

    gradient.decoder = Decoder(gradient.decoder, counted)
    draw(model, 1, steps=8)
    return count


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({}, 8), ({"every": 2}, 4), ({"every": 3}, 3), ({"every": 20}, 1), ({"start_percent": 0.5}, 4),
        ({"end_percent": 0.3}, 3), ({"start_percent": 0.05, "end_percent": 0.45, "every": 4}, 1),
        ({"start_percent": 0.6, "end_percent": 0.7, "every": 4}, 1), ({"start_percent": 0.1, "every": 2}, 4),
    ],
)  # fmt: skip
def test_window_and_every(guide, draw, inputs, expected):
    """The demo's sigma falls linearly from 1, so eight steps stand at 0, 1/8, … 7/8 of the sampling."""
    assert evaluations(guide, draw, **inputs) == expected


SCALE = 0.05


def shifts(model, seen) -> list[float]:
    """How far each evaluation's prediction was moved: the factor of the gradient, as a share of SCALE; without normalize."""
    found = []
    for sigma, plain, moved in seen:
        slope, _ = gradient_of(model)(plain, plain, sigma, model.model)
        found.append(((moved - plain) * slope).sum().item() / slope.square().sum().item() / SCALE)
    return found


def normalized_shifts(_model, seen) -> list[float]:
    """The same with normalize: a share of the prediction's own size."""
    return [((moved - plain).norm() / plain.norm()).item() / SCALE for _, plain, moved in seen]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("every", range(1, 6))
def test_every_moves_a_sampling_as_far_as_each_step_would(demo, guide, empty, sample, every, normalize):
    """Eight steps of a flow model, at σ = 1, 7/8, … 1/8: Σ σ is 4.5."""
    guided, seen = watched(guide, demo[0], every=every, normalize=normalize, scale=SCALE)
    sample(guided, empty, empty, cfg=1.0, steps=8, latent={"samples": ONE_LATENT})
    levels = [1 - step / 8 for step in range(8)]
    own = levels if normalize else [sigma**2 / max(1 - sigma, 0.02) for sigma in levels]
    found = (normalized_shifts if normalize else shifts)(guided, seen)
    blocks = [own[first : first + every] for first in range(0, 8, every)]
    expected = [sum(block) if i == len(block) // 2 else 0.0 for block in blocks for i in range(len(block))]
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3 * sum(own))
    assert sum(found) == pytest.approx(4.5 if normalize else sum(own), rel=1e-3)


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "lms", "ddim", "euler_ancestral", "lcm", "res_multistep"])
def test_every_moves_other_samplers_of_one_evaluation_a_step_as_far(demo, guide, empty, sample, sampler):
    guided, seen = watched(guide, demo[0], every=3, scale=SCALE)
    sample(guided, empty, empty, cfg=1.0, steps=8, sampler=sampler, latent={"samples": ONE_LATENT})
    assert len(seen) == 8 and sum(normalized_shifts(guided, seen)) == pytest.approx(4.5, rel=1e-3)


def test_a_sampling_in_two_parts_is_moved_as_far_as_a_whole_one(demo, guide, empty, sample):
    """As KSampler (Advanced) does its steps, with the first part's noise left over; the second begins the count anew."""
    guided, seen = watched(guide, demo[0], every=4, scale=SCALE)
    first = sample(guided, empty, empty, cfg=1.0, steps=8, start_step=0, last_step=3, force_full_denoise=False)
    sample(
        guided, empty, empty, cfg=1.0, steps=8, start_step=3, last_step=8, disable_noise=True, latent={"samples": first}
    )
    assert len(seen) == 8 and sum(normalized_shifts(guided, seen)) == pytest.approx(4.5, rel=1e-3)


def test_steps_of_one_noise_level_are_guided_together(node, demo, guide, empty):
    """They cannot be told apart. With the step before them they move as far as every = 1 does: by 1 + 0.5 + 0.5."""
    guided, seen = watched(guide, demo[0], every=2, scale=SCALE)
    node(
        "SamplerCustom", model=guided, add_noise=True, noise_seed=0, cfg=1.0, positive=empty, negative=empty,
        sampler=node("KSamplerSelect", sampler_name="euler")[0], sigmas=torch.tensor([1.0, 0.5, 0.5, 0.0]),
        latent_image={"samples": torch.zeros(1, 4, 16, 16)},
    )  # fmt: skip
    assert normalized_shifts(guided, seen) == pytest.approx([0.0, 1.0, 1.0], rel=1e-3)


@pytest.mark.parametrize(
    ("sampler", "guided_at"), [("heun", [0.5, 0.5]), ("seeds_3", [0.5, 1 / (1 + 3 ** (1 / 3)), 1 / (1 + 3 ** (2 / 3))])]
)
def test_samplers_that_evaluate_between_steps_are_guided_within_the_step(
    demo, guide, empty, sample, sampler, guided_at
):
    """Of σ = 1, 0.75, 0.5, 0.25 the third step is guided: heun arrives at its level in the step before, and seeds_3 looks at two
    levels within it, evenly spread in log((1 − σ)/σ)."""
    guided, seen = watched(guide, demo[0], every=4)
    sample(guided, empty, empty, cfg=1.0, steps=4, sampler=sampler)
    found = [sigma.item() for sigma, plain, moved in seen if not torch.equal(plain, moved)]
    assert found == pytest.approx(guided_at, rel=1e-4)


def test_a_sampler_that_leaves_out_the_guided_steps_is_named(node, demo, guide, empty, monkeypatch, caplog):
    """As those that choose their own may: here one that evaluates the first of three steps alone."""
    said = []
    monkeypatch.setattr(in_process.pack_module("nodes.feedback").Feedback, "say", lambda _, text: said.append(text))

    def first_alone(model, x, sigmas, extra_args, callback, disable):
        return model(x, sigmas[0] * x.new_ones(len(x)), **extra_args)

    for every in (1, 4):
        node(
            "SamplerCustom", model=guide(every=every), add_noise=True, noise_seed=0, cfg=1.0, positive=empty,
            negative=empty, sampler=comfy.samplers.KSAMPLER(first_alone), sigmas=torch.tensor([1.0, 0.6, 0.3, 0.0]),
            latent_image={"samples": torch.zeros(1, 4, 16, 16)},
        )  # fmt: skip
    guided, not_guided = said
    assert guided.startswith("1 of 3 steps")
    assert not_guided.startswith("No effect: its sampler has steps of its own, and none of them is one that every = 4")
    assert "Classifier guidance had no effect in this sampling: its sampler has steps of its own" in caplog.text


def test_every_counts_the_steps_of_a_schedule_that_rises(node, guide, empty):
    """From picture to noise, as nodes that unsample do."""

    def draw(model, batch, steps):
        falling = node("BasicScheduler", model=model, scheduler="simple", steps=steps, denoise=1.0)[0]
        return node(
            "SamplerCustom", model=model, add_noise=False, noise_seed=0, cfg=1.0, positive=empty, negative=empty,
            sampler=node("KSamplerSelect", sampler_name="euler")[0], sigmas=node("FlipSigmas", sigmas=falling)[0],
            latent_image={"samples": torch.zeros(batch, 4, 16, 16)},
        )  # fmt: skip

    assert evaluations(guide, draw, every=3) == 3


@pytest.mark.parametrize("sampler", comfy.samplers.KSampler.SAMPLERS)
def test_every_sampler(demo, guide, draw, sampler):
    plain, guided = (draw(model, 1, steps=3, sampler=sampler) for model in (demo[0], guide(decode="half")))
    assert guided.isfinite().all() and not torch.equal(plain, guided)


# The ancestral ones have a twin of another kind for flow models.
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "res_multistep", "gradient_estimation"])
def test_a_sampler_that_reads_the_negative_is_guided_as_far_as_its_twin(demo, guide, draw, sampler):
    """Without CFG both draw the same: a step has its share of the shift, not all of it."""
    model = in_float64(guide(decode="half"))
    one, twin = (draw(model, 1, steps=6, sampler=name) for name in (sampler, f"{sampler}_cfg_pp"))
    assert_agree(one, twin)
    assert not agree(one, draw(demo[0], 1, steps=6, sampler=sampler))


def test_lazy_cache_keeps_predictions_without_guidance(node, demo, guide, draw):
    """Else it would do a guided step's again in steps that it spares, with the strength of all that such a step stands for."""
    outer, inner = [], []

    def spy(seen):
        def seeing(executor, *args, **kwargs):
            seen.append(executor(*args, **kwargs))
            return seen[-1]

        return seeing

    model = demo[0].clone()
    model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "spy", spy(outer))
    model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "lazycache", spy(inner))  # around the cache, next to it
    (model,) = node("LazyCache", model=model, reuse_threshold=0.5, start_percent=0.15, end_percent=0.95, verbose=False)
    model = guide(model, every=4, decode="half")
    evaluated = []
    model.add_wrapper_with_key(
        WrappersMP.APPLY_MODEL, "count", lambda run, *a, **k: evaluated.append(1) or run(*a, **k)
    )
    draw(model, 1, steps=12)
    assert len(outer) == len(inner) == 12 > len(evaluated)
    moved = [step for step, (one, other) in enumerate(zip(outer, inner)) if not torch.equal(one, other)]
    assert moved == [2, 6, 10]


def test_other_wrappers_stay_where_they_are_beside_a_cache(node, demo, guide, draw):
    """ERG's own branch behind LazyCache guides as often with a classifier as without."""

    def evaluations(classified):
        (model,) = node(
            "LazyCache", model=demo[0], reuse_threshold=0.5, start_percent=0.15, end_percent=0.95, verbose=False
        )
        (model,) = node("EntropyGuidanceERG", model=model, scale=1.0)
        seen = []
        model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "spy", lambda run, *a, **k: seen.append(1) or run(*a, **k))
        draw(guide(model, every=4, scale=1e-6, decode="half") if classified else model, 1, steps=12)
        return len(seen)

    assert evaluations(True) == evaluations(False) < 12


def test_what_a_sampler_reads_is_its_own(demo, guide, draw):
    """A node may keep the negative prediction; a guided step of a sampler that reads it leaves that as it was."""
    model, kept = guide(decode="half"), []

    def keeping(args):
        kept.append((args["uncond_denoised"], args["uncond_denoised"].clone()))
        return args["denoised"]

    model.set_model_sampler_post_cfg_function(keeping)
    draw(model, 1, steps=3, sampler="euler_cfg_pp")
    assert len(kept) == 3 and all(torch.equal(*pair) for pair in kept)


def test_inpainting_keeps_what_the_mask_protects(guide, empty, sample):
    latent = {"samples": torch.ones(1, 4, 16, 16), "noise_mask": torch.zeros(1, 1, 128, 128)}
    latent["noise_mask"][..., 64:] = 1
    kept = sample(guide(), empty, empty, cfg=1.0, latent=latent)
    assert_agree(kept[..., :7], latent["samples"][..., :7])


def test_together_with_cfg_erg_and_apg(node, demo, guide, prompts, sample):
    erg = node("EntropyGuidanceERG", model=demo[0])[0]
    both = sample(guide(erg), *prompts)
    assert torch.equal(both, sample(node("EntropyGuidanceERG", model=guide())[0], *prompts))
    assert not torch.equal(both, sample(erg, *prompts)) and not torch.equal(both, sample(guide(), *prompts))
    apg = node("APG", model=guide(), eta=0.5, norm_threshold=2.0, momentum=-0.5)[0]
    assert sample(apg, *prompts).isfinite().all()


def test_together_with_lora(demo, guide, draw):
    name = "diffusion_model.single_blocks.0.linear2"
    lora = {f"{name}.lora_up.weight": torch.full((128, 4), 0.1), f"{name}.lora_down.weight": torch.full((4, 640), 0.02)}
    first, _ = comfy.sd.load_lora_for_models(demo[0], None, lora, 1.0, 0.0)
    last, _ = comfy.sd.load_lora_for_models(guide(), None, lora, 1.0, 0.0)
    drawn = draw(guide(first), 2)
    assert torch.equal(drawn, draw(last, 2))
    assert not torch.equal(drawn, draw(guide(), 2)) and not torch.equal(drawn, draw(first, 2))


def test_together_with_a_controlnet(node, guide, sample):
    model, plain = random_models.build("SD15"), random_models.conditions()
    hint = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(0))
    controlled = node(
        "ControlNetApplyAdvanced", positive=plain[0], negative=plain[1], control_net=random_models.controlnet(),
        image=hint, strength=1.0, start_percent=0.0, end_percent=1.0,
    )  # fmt: skip
    guided = guide(model)
    drawn = [sample(m, *c, steps=2) for m in (model, guided) for c in (plain, controlled)]
    assert all(not torch.equal(drawn[i], drawn[j]) for i in range(4) for j in range(i))


class Decoder:
    """A decoder whose pictures a function changes."""

    def __init__(self, decoder, change):
        self.decoder, self.change = decoder, change
        self.patcher, self.decode, self.memory_of = decoder.patcher, decoder.decode, decoder.memory_of

    def images(self, call, x0):
        return self.change(self.decoder.images(call, x0))


def test_broken_gradients_are_said_once_and_spare_the_other_pictures(demo, guide, draw, caplog):
    broken = torch.tensor([1, torch.nan, 1, 1])[:, None, None, None]
    model, seen = guide(), []
    model.model_options["entropy_guidance_observers"] = [lambda source, sigma, gradient, log_p: seen.append(log_p)]
    expected = draw(model, 4)
    seen.clear()
    gradient = gradient_of(model)
    gradient.decoder = Decoder(gradient.decoder, lambda images: images * broken.clone())
    drawn = draw(model, 4)
    assert_agree(drawn[[0, 2, 3]], expected[[0, 2, 3]])
    assert_agree(drawn[1], draw(demo[0], 4)[1])
    assert gradient._log_p is None and torch.equal(seen[0].isnan(), broken.flatten().isnan())
    assert caplog.text.count("gradients were not finite") == 1
    assert "6 gradients" in caplog.text  # one picture, six steps


def test_pictures_are_looked_at_one_by_one_where_memory_is_short(guide, monkeypatch):
    model, x0 = in_float64(guide(decode="half")), torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    together = gradient_at(model, x0)
    counts = []
    gradient = gradient_of(model)
    gradient.decoder = Decoder(gradient.decoder, lambda images: counts.append(len(images)) or images)
    gradient._forget()
    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "get_free_memory", lambda *_: 1)
    for one, all_ in zip(gradient_at(model, x0), together):
        assert_agree(one, all_)
    assert counts == [1, 1, 1]


@pytest.mark.parametrize("kind", ["apply", "ddpm"])
def test_weights_are_moved_outside_of_inference_mode(
    node, demo, guide, draw, empty, guided_ddpm, classifier, monkeypatch, kind
):
    """Else each would be copied once more on the device, for as long as the sampling lasts."""
    moved, load = [], comfy.model_management.load_models_gpu

    def note(models, *args, **kwargs):
        if classifier.patcher in models:
            moved.append(torch.is_inference_mode_enabled())
        return load(models, *args, **kwargs)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", note)
    with torch.inference_mode():
        if kind == "apply":
            draw(guide())
        else:
            ddpm(node, demo[0], (empty, empty), guided_ddpm(scale=1.0), torch.tensor([1.0, 0.5, 0.0]), ONE_LATENT)
    assert moved[0] is False


def test_memory_is_left_for_the_gradient_of_one_picture(guide, draw, monkeypatch):
    """A model that takes all the memory that its own evaluation does not need leaves a decoder none."""
    model, room = guide(decode="half"), []
    needed = gradient_of(model).memory_of_one((1, 4, SMALL, SMALL))
    estimate = comfy.sampler_helpers.estimate_memory

    def note(*args):
        room.append(estimate(*args))
        return room[-1]

    monkeypatch.setattr(comfy.sampler_helpers, "estimate_memory", note)
    monkeypatch.setattr(
        type(model.model), "memory_required", lambda self, input_shape, cond_shapes={}: input_shape[0] * 1e3
    )
    draw(model)
    assert needed <= room[0][1] < needed + 1000


@pytest.mark.parametrize("kind", ["pixels", "noise"])
def test_what_a_classifier_keeps_for_its_gradient_is_counted(node, monkeypatch, kind):
    """Also where nothing is decoded."""
    name = "entropy-guidance-demo-classes"
    model = node("EntropyGuidanceLoadADM", model_name=name)[0]
    of_kind = name if kind == "pixels" else f"{name}-noise-aware"
    classifier = node("EntropyGuidanceLoadClassifier", classifier_name=of_kind)[0]
    score = node("EntropyGuidanceScore", classifier=classifier, labels="red circle")[0]
    guided = node("EntropyGuidanceApply", model=model, score=score, every=1)[0]
    gradient, x = gradient_of(guided), torch.zeros(5, 3, 32, 32)
    assert gradient.memory_of_one(x.shape) == 2 * classifier.kept > 32 * 32 * 3 * 4
    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "get_free_memory", lambda *_: 2.5 * 2 * classifier.kept)
    assert gradient._at_once(x) == 2


def test_memory_is_measured_beside_the_weights(guide, monkeypatch):
    """What is copied of decoder and classifier is copied before."""
    model, copied = guide(decode="half"), []
    copies = gradient_of(model)._call._copies
    monkeypatch.setattr(
        comfy.model_patcher.ModelPatcher, "get_free_memory", lambda *_: copied.append(len(copies)) or 2**40
    )
    gradient_at(model, torch.zeros(1, 4, 16, 16))
    assert copied == [2]


class ReadsNoise(torch.nn.Linear):
    """A noise-aware classifier of small latents."""

    def __init__(self, classes):
        super().__init__(4 * SMALL * SMALL, classes, dtype=torch.float64)

    def forward(self, x, kept):
        return super().forward(x.flatten(1).double()) * kept[:, None]


class OfMemory(torch.nn.Module):
    """A classifier that has memory for so many pictures together, and notes how many it was shown."""

    def __init__(self, network, most, error):
        super().__init__()
        self.network, self.most, self.error, self.shown = network, most, error, []

    def forward(self, *inputs):
        self.shown.append(len(inputs[0]))
        if len(inputs[0]) > self.most:
            raise self.error
        return self.network(*inputs)


OUT_OF_MEMORY = {  # in the words of several backends
    "latents": torch.cuda.OutOfMemoryError("CUDA out of memory."),
    "pixels": RuntimeError("MPS backend out of memory (MPS allocated: 17.50 GB)."),
    "noise": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
}


def of_memory(gradient, most, decoder, network, error):
    """The ScoreGradient of another classifier, seen through a decoder, and that classifier."""
    module = OfMemory(network, most, error)
    patcher = comfy.model_patcher.ModelPatcher(module, torch.device("cpu"), torch.device("cpu"))
    classifier = replace(gradient.score.classifier, patcher=patcher)
    return type(gradient)(replace(gradient.score, classifier=classifier), decoder), module


@pytest.mark.parametrize("kind", ["latents", "pixels", "noise"])
def test_fewer_pictures_are_looked_at_where_memory_runs_out(demo, guide, classifier, monkeypatch, kind):
    """With the same gradients, and no more tries in the steps after; ComfyUI's own kind of error where one is too many."""
    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "get_free_memory", lambda *_: 2**50)
    gradient = gradient_of(in_float64(guide()))
    decoder, network, shape = gradient.decoder, gradient.score.classifier.patcher.model, (4, SMALL, SMALL)
    if kind == "pixels":
        pixels = in_process.pack_module("nodes.classifiers.latent_decoder").LatentDecoder
        decoder, shape = pixels("pixels", comfy.latent_formats.ChromaRadiance()), (3, 32, 32)
    if kind == "noise":
        torch.manual_seed(0)
        decoder, network = None, ReadsNoise(len(classifier.labels))
    x = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    (together, _), (apart, module), (none, tried) = (
        of_memory(gradient, most, decoder, network, OUT_OF_MEMORY[kind]) for most in (5, 1, 0)
    )
    inputs = x, x, torch.full((5,), 0.5), demo[0].model
    expected = together(*inputs)
    assert expected[0].flatten(1).any(1).all()
    for values, expected_values in (*zip(apart(*inputs), expected), *zip(apart(*inputs), expected)):
        assert_agree(values, expected_values)
    assert module.shown == [5, 2, *[1] * 10]
    words = f"memory is too short for the gradient of one picture, of a latent of {shape[2]} × {shape[1]}. Draw smaller"
    with pytest.raises(comfy.model_management.OOM_EXCEPTION, match=words):
        none(*inputs)
    assert tried.shown == [5, 2, 1]


@pytest.mark.parametrize("where", ["network", "decoder", "classifier"])
def test_out_of_memory_in_the_middle_of_a_step_leaves_nothing_behind(demo, guide, draw, classifier, where):
    """The same model and all others draw what they drew, bit for bit."""
    vae, network = demo[2].first_stage_model, demo[0].model.diffusion_model
    module = {"network": network, "decoder": vae.taesd_decoder, "classifier": classifier.patcher.model}[where]
    models = guide(), guide(labels="red"), demo[0], demo[0].clone()
    before, calls = [draw(model, 1) for model in models], 0

    def run_out(*_):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    hook = module.register_forward_pre_hook(run_out)
    try:
        words = "CUDA out of memory" if where == "network" else "memory is too short for the gradient of one picture"
        with pytest.raises(comfy.model_management.OOM_EXCEPTION, match=words):
            draw(models[0], 1)
    finally:
        hook.remove()
    gradient = gradient_of(models[0])
    assert calls == 3 and not gradient._call._copies and gradient._batch is None and gradient._log_p is None
    assert all(torch.equal(draw(model, 1), drawn) for model, drawn in zip(models, before))


def test_what_a_sampling_noted_goes_with_it(guide):
    """And one inside of another changes nothing of what that says."""
    model = guide()
    gradient, x0 = gradient_of(model), torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with gradient:
        gradient_at(model, x0)
        sure = gradient.how_sure()
        with gradient:
            gradient_at(model, x0[:1])
            assert gradient.how_sure() != sure  # which has a range
        assert gradient.how_sure() == sure
    assert gradient._log_p is None


def small_autoencoder_kl():
    from comfy.ldm.models.autoencoder import AutoencoderKL

    sizes = {**random_models.SD_VAE, "ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1}
    return AutoencoderKL(ddconfig=sizes, embed_dim=4)


def taesd():
    from comfy.taesd.taesd import TAESD

    return TAESD()


@pytest.mark.parametrize("make", [small_autoencoder_kl, taesd])
def test_what_no_decoding_reads_is_not_copied(make):
    """The gradient is that through copies of all weights, bit for bit."""
    torch.manual_seed(0)
    vae = make().eval()
    for parameter in vae.parameters():
        parameter.copy_(0.1 * torch.randn_like(parameter))
    decode = in_process.pack_module("nodes.classifiers.latent_decoder")._Decode(vae)
    normal = in_process.pack_module("nodes.classifiers.normal_weights").NormalWeights()
    assert all(weight.is_inference() for weight in decode.parameters())
    x0 = torch.randn(1, 4, 8, 8)
    with torch.inference_mode(False), torch.enable_grad():
        leaf = x0.clone().requires_grad_()
        everything = {name: weight.clone() for name, weight in decode.state_dict().items()}
        pictures = normal(decode, leaf), torch.func.functional_call(decode, everything, (leaf,))
        gradient, expected = (torch.autograd.grad(picture.square().sum(), leaf)[0] for picture in pictures)
    assert expected.any() and torch.equal(gradient, expected)
    read = {name for name in everything if not name.startswith(("vae.encoder", "vae.quant_conv", "vae.taesd_encoder"))}
    assert normal._copies[decode].keys() == read and len(read) < len(everything)


def test_weights_that_move_between_two_gradients_are_copied_then():
    """As where ComfyUI, in its inference mode, moves some for a preview's decoder."""
    normal = in_process.pack_module("nodes.classifiers.normal_weights").NormalWeights()
    with torch.inference_mode(False), torch.enable_grad():
        module, x = torch.nn.Linear(4, 3).requires_grad_(False), torch.randn(2, 4, requires_grad=True)
        (before,) = torch.autograd.grad(normal(module, x).square().sum(), x)
        assert not normal._copies[module]
        with torch.inference_mode():
            module.weight = torch.nn.Parameter(module.weight.clone(), requires_grad=False)
        (after,) = torch.autograd.grad(normal(module, x).square().sum(), x)
        assert normal._copies[module].keys() == {"weight"}
    assert before.any() and torch.equal(after, before)


def test_weights_are_copied_for_gradients_alone(classifier):
    normal = in_process.pack_module("nodes.classifiers.normal_weights").NormalWeights()
    module, picture = torch.nn.Linear(4, 3).requires_grad_(False), torch.randn(2, 4)
    assert all(weight.is_inference() for weight in module.parameters())
    with torch.no_grad():
        normal(module, picture)
    assert not normal._copies[module]


def test_interrupt_and_exception_leave_nothing_behind(demo, guide, draw):
    model, before = guide(), draw(demo[0])

    def fail(executor, *args, **kwargs):
        executor(*args, **kwargs)
        raise InterruptedError

    failing = model.clone()
    failing.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "fail", fail)
    with pytest.raises(InterruptedError):
        draw(failing)
    gradient = gradient_of(model)
    assert not gradient._call._copies and gradient._broken is None
    assert torch.equal(before, draw(demo[0]))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"scale": -1.0}, "scale = -1.0: it must be a finite number of 0 or more"),
        ({"scale": float("nan")}, "scale = nan"),
        ({"tilt": float("inf")}, "tilt = inf"),
        ({"every": 0}, "every = 0"),
        ({"every": 2.5}, "every = 2.5: it must be a whole number of 1 or more"),
        ({"start_percent": 0.8, "end_percent": 0.2}, "must end after it starts"),
        ({"vae": None}, "vae: the model works in a latent space of 4 channels"),
        ({"decode": "taesd"}, "decode = 'taesd': there is no"),
        ({"decode": "tiny"}, "decode = 'tiny': it must be one of auto, full, half, taesd"),
        ({"labels": "blu"}, "no class 'blu'. Did you mean 'blue'"),
        ({"labels": ""}, "names no class"),
        ({"divergence": "forward_kl", "target_confidence": 1.0}, "choose a value below 1"),
        ({"softplus_beta": -1.0}, "softplus_beta = -1.0"),
        ({"joint_temperature": float("nan")}, "joint_temperature = nan"),
    ],
)
def test_bad_input(guide, inputs, message):
    with pytest.raises(ValueError, match=message):
        guide(**inputs)


def test_labels_that_fit_neither_one_nor_the_batch(guide, draw):
    with pytest.raises(ValueError, match="2 classes for a batch of 4 images: give one class, or 4"):
        draw(guide(labels="0, 1"))


def test_a_vae_of_another_latent(guide, demo):
    from comfy.taesd.taesd import TAESD

    other = comfy.sd.VAE(sd=TAESD(latent_channels=16).state_dict())
    with pytest.raises(ValueError, match="vae: it decodes 16 channels, but the model's latents have 4"):
        guide(vae=other)


def test_latents_of_one_frame_and_formats_made_of_tensors(demo):
    """Wan's format, of Qwen-Image too, scales latents of five dimensions by tensors, made in inference mode here."""
    wan = comfy.latent_formats.Wan21()
    assert wan.latents_mean.is_inference()
    latent_decoder = in_process.pack_module("nodes.classifiers.latent_decoder")
    decoder = latent_decoder.LatentDecoder("pixels", latent_decoder._normal(wan), scale=1.0, shift=0.0)
    x0 = torch.randn(2, 16, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(False), torch.enable_grad():
        leaf = x0.clone().requires_grad_()
        images = decoder.images(None, leaf)
        (gradient,) = torch.autograd.grad(images.sum(), leaf)
    torch.testing.assert_close(images, wan.process_out(x0)[:, :, 0])
    torch.testing.assert_close(gradient, (wan.process_out(x0 + 1) - wan.process_out(x0)))


@pytest.mark.parametrize("shape", [(1, 1, 5000), (1, 64, 200)])
def test_sound_is_refused(guide, shape):
    with pytest.raises(ValueError, match="knows pictures, not sound"):
        gradient_at(guide(), torch.zeros(shape))


def test_video_is_refused(guide):
    with pytest.raises(ValueError, match="does not know video: the latent has 5 frames"):
        gradient_at(guide(), torch.zeros(1, 4, 5, 16, 16))


def ddpm(node, model, conditions, sampler, sigmas, latent):
    return node(
        "SamplerCustom", model=model, add_noise=True, noise_seed=3, cfg=1.0, positive=conditions[0],
        negative=conditions[1], sampler=sampler, sigmas=sigmas, latent_image={"samples": latent},
    )[0]["samples"]  # fmt: skip


@pytest.fixture
def guided_ddpm(node, demo, classifier):
    def sampler(**inputs):
        score = node("EntropyGuidanceScore", classifier=classifier, labels=WANTED)[0]
        return node("EntropyGuidanceDDPMSampler", score=score, vae=demo[2], **inputs)[0]

    return sampler


def test_a_single_step_of_ddpm_to_the_picture_says_that_nothing_guides(node, demo, guided_ddpm, empty, monkeypatch):
    said = []
    monkeypatch.setattr(in_process.pack_module("nodes.feedback").Feedback, "say", lambda _, text: said.append(text))
    sigmas = torch.tensor([0.5, 0.0])
    drawn = [ddpm(node, demo[0], (empty, empty), guided_ddpm(scale=scale), sigmas, ONE_LATENT) for scale in (0.0, 9.0)]
    assert torch.equal(*drawn)
    assert said[-1].startswith("No effect: a single step to the picture has no variance")
    large = ddpm(node, demo[0], (empty, empty), guided_ddpm(scale=9.0, variance="large"), sigmas, ONE_LATENT)
    assert not agree(large, drawn[0])


def test_ddpm_without_guidance_is_comfyui_s_own(node, guided_ddpm):
    model, conditions = random_models.build("SD15"), random_models.conditions()
    sigmas = node("BasicScheduler", model=model, scheduler="normal", steps=5, denoise=1.0)[0]
    latent = torch.zeros(2, 4, 16, 16)
    own = ddpm(node, model, conditions, node("KSamplerSelect", sampler_name="ddpm")[0], sigmas, latent)
    ours = ddpm(node, model, conditions, guided_ddpm(scale=0.0), sigmas, latent)
    assert_agree(ours, own)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_ddpm_loads_a_classifier_beside_what_is_in_use(node, demo, empty, guided_ddpm, monkeypatch, scale):
    management, asked = comfy.model_management, []
    load = management.load_models_gpu
    monkeypatch.setattr(
        management, "load_models_gpu", lambda models, **more: asked.append([*models]) or load(models, **more)
    )
    guider = node(
        "DualModelGuider", model=demo[0], model_negative=demo[0].clone(), positive=empty, negative=empty, cfg=2.0
    )[0]
    node(
        "SamplerCustomAdvanced", noise=node("RandomNoise", noise_seed=0)[0], guider=guider, sampler=guided_ddpm(scale=scale),
        sigmas=torch.tensor([1.0, 0.5, 0.0]), latent_image={"samples": ONE_LATENT},
    )  # fmt: skip
    of_classifier = [models for models in asked if any("Classifier" in type(m.model).__name__ for m in models)]
    assert len(of_classifier) == (scale > 0)
    for models in of_classifier:
        assert guider.model_patcher in models and guider.uncond_model_patcher in models


def test_ddpm_leads_a_flow_model_to_the_class(node, demo, empty, guided_ddpm, probabilities):
    sigmas = node("BasicScheduler", model=demo[0], scheduler="simple", steps=12, denoise=1.0)[0]
    latent = torch.zeros(4, 4, 16, 16)
    plain, guided = (
        probabilities(ddpm(node, demo[0], (empty, empty), guided_ddpm(scale=scale), sigmas, latent)).mean()
        for scale in (0.0, 3.0)
    )
    assert guided > plain + 0.2


@pytest.mark.parametrize("scale", [0.0, 3.0])
@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("scheduler", comfy.samplers.KSampler.SCHEDULERS)
def test_ddpm_with_every_scheduler(node, demo, empty, guided_ddpm, scheduler, variance, scale):
    """Some of them end at the demo model's least noise, 1e-4, where 1 − ᾱ is 0 in single precision."""
    sigmas = node("BasicScheduler", model=demo[0], scheduler=scheduler, steps=3, denoise=1.0)[0]
    sampler = guided_ddpm(scale=scale, variance=variance)
    assert ddpm(node, demo[0], (empty, empty), sampler, sigmas, ONE_LATENT).isfinite().all()


@pytest.mark.parametrize("shift", [0.1, 0.5, 1.15])
def test_ddpm_with_a_shifted_flow(node, demo, empty, guided_ddpm, shift):
    (model,) = node("ModelSamplingFlux", model=demo[0], max_shift=shift, base_shift=shift, width=128, height=128)
    sigmas = node("BasicScheduler", model=model, scheduler="simple", steps=3, denoise=1.0)[0]
    assert ddpm(node, model, (empty, empty), guided_ddpm(scale=3.0), sigmas, ONE_LATENT).isfinite().all()


@pytest.mark.parametrize("repeated", [[1.0, 0.5, 0.0, 0.0], [1.0, 1.0, 0.5, 0.0], [1.0, 0.5, 0.5, 0.0]])
def test_ddpm_leaves_a_picture_as_it_is_where_the_noise_stays(node, demo, empty, guided_ddpm, repeated):
    drawn, expected = (
        ddpm(node, demo[0], (empty, empty), guided_ddpm(scale=3.0), torch.tensor(sigmas), ONE_LATENT)
        for sigmas in (repeated, [1.0, 0.5, 0.0])
    )
    assert expected.isfinite().all() and torch.equal(drawn, expected)


def test_ddpm_adds_noise_as_loud_as_the_model_has_it(node, demo, empty, guided_ddpm):
    """A step from noise alone to σ = 0.5 gives 0.5 x0 + 0.5 s n, with s as ModelNoiseScale sets it."""
    seen = []

    def after(scale):
        model, sampling = demo[0].clone(), copy.copy(demo[0].get_model_object("model_sampling"))
        sampling.noise_scale = scale
        model.add_object_patch("model_sampling", sampling)
        model.set_model_sampler_post_cfg_function(
            lambda args: seen.append(args["denoised"].clone()) or args["denoised"]
        )
        sigmas, latent = torch.tensor([1.0, 0.5]), torch.zeros(4, 4, 32, 32)
        found = ddpm(node, model, (empty, empty), guided_ddpm(scale=0.0), sigmas, latent)
        return 2 * model.model.process_latent_in(0.5 * found) - seen[-1]  # ComfyUI divides what is left by 1 − σ

    quiet, loud = after(1.0), after(8.0)
    assert quiet.std() == pytest.approx(1, rel=0.05)
    assert_agree(loud, 8 * quiet)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_keeps_what_the_mask_protects(node, demo, empty, guided_ddpm, variance):
    latent = {"samples": torch.ones(1, 4, SMALL, SMALL), "noise_mask": torch.zeros(1, 1, 8 * SMALL, 8 * SMALL)}
    latent["noise_mask"][..., 4 * SMALL :] = 1
    drawn = node(
        "SamplerCustom", model=demo[0], add_noise=True, noise_seed=3, cfg=1.0, positive=empty, negative=empty,
        sampler=guided_ddpm(scale=50.0, variance=variance), sigmas=torch.tensor([1.0, 0.5, 0.0]), latent_image=latent,
    )[0]["samples"]  # fmt: skip
    assert_agree(drawn[..., : SMALL // 2 - 1], latent["samples"][..., : SMALL // 2 - 1])
    assert not torch.equal(drawn, latent["samples"])


def test_ddpm_guides_what_a_step_may_change(node, demo, empty, guided_ddpm):
    """Differential Diffusion makes of a grey mask another one in each step."""

    def draw(model, grey):
        latent = {"samples": torch.ones(1, 4, SMALL, SMALL), "noise_mask": torch.full((1, 1, 64, 64), grey)}
        return node(
            "SamplerCustom", model=model, add_noise=True, noise_seed=3, cfg=1.0, positive=empty, negative=empty,
            sampler=guided_ddpm(scale=3.0), sigmas=torch.tensor([1.0, 0.5, 0.0]), latent_image=latent,
        )[0]["samples"]  # fmt: skip

    differential = demo[0].clone()
    differential.set_model_denoise_mask_function(lambda sigma, mask, extra_options: (mask > 0.3).to(mask))
    expected = draw(demo[0], 1.0)
    assert torch.equal(draw(differential, 0.5), expected) and not agree(draw(demo[0], 0.5), expected)


@pytest.mark.parametrize("sigmas", [[0.5], [0.5, 0.5]])
def test_ddpm_without_a_step_is_no_sampler(node, demo, empty, guided_ddpm, sigmas):
    """As SplitSigmas gives at its ends; ComfyUI's samplers hand on what they get, too."""
    own = node("KSamplerSelect", sampler_name="euler")[0]
    drawn, expected = (
        ddpm(node, demo[0], (empty, empty), sampler, torch.tensor(levels), ONE_LATENT)
        for sampler, levels in ((guided_ddpm(scale=3.0), sigmas), (own, sigmas[:1]))
    )
    assert expected.isfinite().all() and torch.equal(drawn, expected)


def test_ddpm_refuses_noise_levels_that_rise(node, demo, empty, guided_ddpm):
    turned = node("FlipSigmas", sigmas=torch.tensor([1.0, 0.5, 0.0]))[0]
    with pytest.raises(
        ValueError, match=r"sigmas: 0\.0001 is followed by 0\.5, and the Guided DDPM Sampler takes .* fall"
    ):
        ddpm(node, demo[0], (empty, empty), guided_ddpm(scale=3.0), turned, ONE_LATENT)


def test_ddpm_takes_comfyui_s_own_levels_that_rounding_leaves_above_1(node, guided_ddpm):
    model, conditions = random_models.build("SD3"), random_models.conditions()
    model = node("ModelSamplingSD3", model=model, shift=2.41)[0]
    sigmas = node("BasicScheduler", model=model, scheduler="normal", steps=3, denoise=1.0)[0]
    assert sigmas[0] > 1
    assert ddpm(node, model, conditions, guided_ddpm(scale=0.0), sigmas, torch.zeros(1, 16, 16, 16)).isfinite().all()


@pytest.mark.parametrize("sigmas", [(1.000005, 1.0, 0.5, 0.0), (1.000009, 1.000001, 0.5, 0.0)])
def test_ddpm_counts_levels_above_1_by_a_rounding_as_1(node, demo, empty, guided_ddpm, sigmas):
    def drawn(sigmas):
        return ddpm(node, demo[0], (empty, empty), guided_ddpm(scale=0.0), torch.tensor(sigmas), ONE_LATENT)

    # ComfyUI makes the first noise of the first level, a rounding larger.
    assert torch.allclose(drawn(sigmas), drawn((1.0, 0.5, 0.0)), atol=1e-3)


@pytest.mark.parametrize("name", ["demo", "SD15"])
@pytest.mark.parametrize("sigmas", [(2.0, 1.0, 0.5, 0.0), (1.0, 0.5, -0.2), (math.inf, 1.0, 0.0), (1.0, math.nan)])
def test_ddpm_refuses_what_is_no_noise_level_of_the_model(node, demo, empty, guided_ddpm, name, sigmas):
    model, sampler = (demo[0], guided_ddpm(scale=3.0)) if name == "demo" else (random_models.build(name), guided_ddpm())
    conditions = (empty, empty) if name == "demo" else random_models.conditions()
    if name == "SD15" and max(sigmas) == 2:  # which such models have
        assert ddpm(node, model, conditions, sampler, torch.tensor(sigmas), ONE_LATENT).isfinite().all()
        return
    with pytest.raises(ValueError, match="is no noise level of this model, whose levels go from 0"):
        ddpm(node, model, conditions, sampler, torch.tensor(sigmas), ONE_LATENT)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"scale": -1.0}, "scale = -1.0"),
        ({"gamma": -0.1}, "gamma = -0.1"),
        ({"variance": "auto"}, "variance = 'auto': it must be one of small, large, learned"),
    ],
)
def test_bad_input_of_ddpm(guided_ddpm, inputs, message):
    with pytest.raises(ValueError, match=message):
        guided_ddpm(**inputs)
