"""DiT and SiT: the numbers of the reference implementations, published layouts, every way of sampling, and bad files.

dit_reference.safetensors holds outputs of https://github.com/facebookresearch/DiT (ed81ce2) and
https://github.com/willisma/SiT (947f95b) in float32, at some positions, for the published depths, heads and patches with
heads of 4 features; its metadata say the cases. `weights_of` and `noise_of` make the weights and inputs that they were
computed from.
"""

import hashlib
import json
from argparse import Namespace
from pathlib import Path

import comfy.model_management
import folder_paths
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torchvision.models import get_model

import nodes
from benchmarks import in_process
from benchmarks.one_step import predict
from benchmarks.random_models import autoencoder_kl
from benchmarks.tolerance import agree, assert_agree

with safe_open(Path(__file__).with_name("dit_reference.safetensors"), "pt") as file:
    CASES = json.loads(file.metadata()["cases"])
    EXPECTED = {name: file.get_tensor(name) for name in CASES}
CLASSES = 10  # of the cases; the null class is behind them
PUBLISHED_TOLERANCE = 1e-4


def some(outputs: torch.Tensor) -> torch.Tensor:
    """The positions whose numbers are kept, of [B, C, H, W]."""
    rows, columns = (5, 7) if outputs.shape[-1] == 32 else (11, 13)
    return outputs[..., ::rows, ::columns]


def noise_of(case: dict) -> torch.Tensor:
    side = case["side"] * case["patch"]
    return torch.from_numpy(
        np.random.RandomState(100 + case["seed"]).standard_normal((2, 4, side, side)).astype(np.float32)
    )


@pytest.fixture(scope="module")
def dit(node):
    return in_process.pack_module("nodes.class_conditional.dit")


@pytest.fixture(scope="module")
def dit_file(node):
    return in_process.pack_module("nodes.class_conditional.dit_file")


def shape_of(dit, case: dict):
    return dit.DitShape(
        4 * case["heads"], case["depth"], case["heads"], case["patch"], case["side"], CLASSES + 1,
        two_outputs=case["two_outputs"], flow=case["flow"],
    )  # fmt: skip


def weights_of(dit, case: dict) -> dict[str, torch.Tensor]:
    """Random weights of a case, from numpy's generator of old, whose numbers stay the same."""
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in dit.DiT(shape_of(dit, case)).state_dict().items()}
    draw, weights = np.random.RandomState(case["seed"]), {}
    for name, shape in sorted(shapes.items()):
        scale = np.prod(shape[1:]) ** -0.5 if len(shape) in (2, 4) else 0.3
        weights[name] = torch.from_numpy((draw.standard_normal(shape) * scale).astype(np.float32))
    return weights


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_those_of_the_reference_implementation(dit, name):
    case = CASES[name]
    network = dit.DiT(shape_of(dit, case), torch.nn)
    network.load_state_dict(weights_of(dit, case))
    told = []
    options = {in_process.pack_module("nodes.classifiers.learned_variance").KEY: Asked(told)}
    time = torch.tensor(case["time"])
    found = network(
        noise_of(case), 1 - time if case["flow"] else time, network.class_table[case["classes"], None], options
    )
    if case["flow"]:
        found = -found
    else:
        found = torch.cat([found, *told], 1)
    torch.testing.assert_close(some(found), EXPECTED[name], rtol=0, atol=PUBLISHED_TOLERANCE)
    assert EXPECTED[name].std() > 0.5 and len(told) == (not case["flow"])


class Asked:
    """Keeps what a network tells of its variance."""

    def __init__(self, told: list):
        self.told = told

    def take(self, values, transformer_options):
        self.told.append(values)


# Weights, and a digest of their names and shapes, of networks that the reference implementations build.
PUBLISHED = {
    "DiT-XL-2-256x256": ((1152, 28, 16, 2, 16), 675_129_632, "0b2e75a339048060daf931c2721e62881e82242f7390f6ee8b4a7c7f2e4f3536"),
    "DiT-XL-2-512x512": ((1152, 28, 16, 2, 32), 676_014_368, "904998f64634d5a328fcc15e2b2eb63a80a6752ee747766d00ad522420268955"),
    "SiT-XL-2-256": ((1152, 28, 16, 2, 16), 675_129_632, "0b2e75a339048060daf931c2721e62881e82242f7390f6ee8b4a7c7f2e4f3536"),
    "my SiT-L-4": ((1024, 24, 16, 4, 8), 458_053_760, "3f7c39c4fbecdef2048ce9ab3282b31018e6c50f4a8fce8ba014b09c3d48e8b6"),
    "dit_b_8": ((768, 12, 12, 8, 4), 130_881_536, "50fd8249902566b9da9a3839567b9489f347fafb18e2a2a188a1b08000967091"),
    "DiT-S-2": ((384, 12, 6, 2, 16), 32_963_360, "708cde74dd38cf91a3361a99a91edf648fec9275453bb93f2cd553bb5d534d5b"),
}  # fmt: skip


@pytest.mark.parametrize("stem", PUBLISHED)
def test_published_layouts(dit, dit_file, stem):
    sizes, count, digest = PUBLISHED[stem]
    shape = dit.DitShape(*sizes, classes=1001, flow="SiT" in stem)
    with torch.device("meta"):
        weights = dit.DiT(shape).state_dict()
    layout = json.dumps(sorted((name, [*weight.shape]) for name, weight in weights.items()))
    assert hashlib.sha256(layout.encode()).hexdigest() == digest
    assert sum(weight.numel() for weight in weights.values()) == count
    settings, same = dit_file.read(weights, {}, stem)
    assert settings.shape == shape and same is weights
    assert len(settings.class_names) == 1000 and settings.class_names[281] == "tabby"


@pytest.fixture
def folder(node, tmp_path):
    before = [*folder_paths.folder_names_and_paths["diffusion_models"][0]]
    folder_paths.add_model_folder_path("diffusion_models", str(tmp_path))
    yield tmp_path
    folder_paths.folder_names_and_paths["diffusion_models"][0][:] = before
    folder_paths.filename_list_cache.pop("diffusion_models", None)


@pytest.fixture
def load(node, folder):
    """load(path of a file in the folder) gives a MODEL."""

    def load_model(path: Path):
        folder_paths.filename_list_cache.pop("diffusion_models", None)
        return node("EntropyGuidanceLoadDiT", model_name=path.name)[0]

    return load_model


def saved(dit, folder: Path, case: dict, **metadata) -> Path:
    path = folder / f"{'SiT' if case['flow'] else 'DiT'}-small.safetensors"
    save_file(weights_of(dit, case), path, {"num_heads": str(case["heads"]), **metadata})
    return path


@pytest.fixture(params=["DiT-S/2 256", "SiT-B/2 256, one output"])
def case(request):
    return CASES[request.param]


@pytest.fixture
def model(dit, folder, load, case):
    return load(saved(dit, folder, case))


@pytest.fixture
def conditions(node, model):
    """Class 3, and no class."""
    return node("EntropyGuidanceClassCondition", model=model, labels="3")


def drawn(sample, model, conditions, **options):
    options = {"latent": {"samples": torch.zeros(1, 4, 32, 32)}, "steps": 2, **options}
    return sample(model, *conditions, **options)


@pytest.mark.parametrize("loader", ["LoadDiT", "LoadADM"])
def test_a_file_that_was_written_anew_has_another_fingerprint(node, folder, loader):
    """Which ComfyUI asks for before it takes a MODEL from its cache."""
    fingerprint, file = nodes.NODE_CLASS_MAPPINGS[f"EntropyGuidance{loader}"].fingerprint_inputs, folder / "DiT.pt"
    file.write_bytes(b"old")
    folder_paths.filename_list_cache.pop("diffusion_models", None)
    before = fingerprint(model_name=file.name)
    assert before == fingerprint(model_name=file.name)
    file.write_bytes(b"newer")
    assert fingerprint(model_name=file.name) != before
    assert fingerprint(model_name=None) == []  # linked


@pytest.mark.parametrize("name", ["DiT-S/2 256", "SiT-B/2 256, one output"])
def test_a_step_of_comfyui_asks_and_uses_the_network_as_the_reference_does(node, dit, folder, load, name):
    """From the file over the class's name to the x0 prediction."""
    case = CASES[name]
    labels = [f"class {i}" for i in range(CLASSES)]
    model = load(saved(dit, folder, case, labels=json.dumps(labels)))
    conditions = node("EntropyGuidanceClassCondition", model=model, labels="class 3")
    latents = noise_of(case)
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)  # ᾱ of DDPM
    for row, time in enumerate(case["time"]):
        if case["flow"]:
            sigma, x = 1 - time, latents[row : row + 1]
        else:
            sigma = (1 / kept[int(time)] - 1).sqrt().item()
            x = latents[row : row + 1] / kept[int(time)].sqrt().float()
        x0 = predict(model, conditions, x, sigma)[row]
        velocity_or_noise = (x - x0) / sigma * (-1 if case["flow"] else 1)
        expected = EXPECTED[name][row : row + 1, :4]
        torch.testing.assert_close(some(velocity_or_noise), expected, rtol=0, atol=3 * PUBLISHED_TOLERANCE)


def test_it_is_a_genuine_model(model, case):
    assert isinstance(model, comfy.model_patcher.ModelPatcher)
    assert (model.model.model_type.name == "FLOW") == case["flow"]
    latent = torch.ones(1, 4, 2, 2)
    assert_agree(model.model.process_latent_in(latent), 0.18215 * latent)


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m_sde", "uni_pc", "ddpm", "heun"])
def test_samplers(model, conditions, sample, sampler):
    picture = drawn(sample, model, conditions, sampler=sampler)
    assert picture.isfinite().all() and picture.std() > 0.01
    assert not agree(picture, drawn(sample, model, conditions, sampler=sampler, cfg=1.0))


@pytest.fixture
def score(node, folder):
    """GUIDANCE_SCORE of a classifier of as many classes."""
    torch.save(get_model("squeezenet1_1", num_classes=CLASSES).state_dict(), folder / "squeezenet1_1.pt")
    folder_paths.add_model_folder_path("classifiers", str(folder))
    classifier = node("EntropyGuidanceLoadClassifier", classifier_name="squeezenet1_1.pt")[0]
    yield node("EntropyGuidanceScore", classifier=classifier, labels="3")[0]
    folder_paths.folder_names_and_paths["classifiers"][0].remove(str(folder))


def test_the_variance_that_a_dit_has_learned(node, model, conditions, score, case):
    vae = autoencoder_kl()

    def ddpm(variance):
        sampler = node("EntropyGuidanceDDPMSampler", score=score, scale=0.0, variance=variance, vae=vae)[0]
        return node(
            "SamplerCustom", model=model, add_noise=True, noise_seed=1, cfg=3.0, positive=conditions[0],
            negative=conditions[1], sampler=sampler, latent_image={"samples": torch.zeros(1, 4, 32, 32)},
            sigmas=model.get_model_object("model_sampling").sigmas[[700, 400, 100]],
        )[0]["samples"]  # fmt: skip

    if case["flow"]:
        with pytest.raises(ValueError, match="'learned': the model told no variance. Choose 'small' or 'large'"):
            ddpm("learned")
    else:
        assert not any(agree(ddpm("learned"), ddpm(other)) for other in ("small", "large"))


def test_a_class_for_each_picture_and_picture_to_picture(node, model, sample):
    several, null = node("EntropyGuidanceClassCondition", model=model, labels="3, 7")
    single = node("EntropyGuidanceClassCondition", model=model, labels="7")[0]
    start = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(3)).repeat(2, 1, 1, 1)
    options = {"latent": {"samples": start}, "denoise": 0.5}
    three, seven = drawn(sample, model, (several, null), **options).split(1)
    both = drawn(sample, model, (single, null), **options)
    assert_agree(seven, both[1:])
    assert not agree(three, both[:1])
    assert agree(drawn(sample, model, (single, null), **{**options, "denoise": 0.0}), start)


def test_guidance_by_layer_and_of_the_core(node, model, conditions, sample):
    plain = drawn(sample, model, conditions, cfg=1.0)
    seen = [plain, drawn(sample, model, conditions)]
    for layers in ("0", "40%-80%", "11"):
        erg = node("EntropyGuidanceERG", model=model, temperature=0.01, layers=layers)[0]
        seen.append(drawn(sample, erg, (conditions[0], conditions[0])))
        own = node("EntropyGuidanceERG", model=model, temperature=0.01, layers=layers, scale=1.0)[0]
        seen.append(drawn(sample, own, conditions, cfg=1.0))
    changed = (
        node("EntropyGuidanceCADS", model=model, apply_to="positive")[0],
        node("APG", model=model, eta=0.5, norm_threshold=0.0, momentum=-0.5)[0],
        node("SkipLayerGuidanceDiT", model=model, single_layers="5", double_layers="", end_percent=1.0)[0],
    )
    seen += [drawn(sample, other, conditions) for other in changed]
    assert all(picture.isfinite().all() for picture in seen)
    assert not any(agree(a, b) for i, a in enumerate(seen) for b in seen[:i])
    assert torch.equal(drawn(sample, model, conditions, cfg=1.0), plain)  # the nodes have left it as it is
    with pytest.raises(ValueError, match="layers = '12' selects nothing: this model has 12 layers"):
        drawn(sample, node("EntropyGuidanceERG", model=model, layers="12")[0], conditions)


def test_a_block_that_another_node_replaces_may_run_itself(model, conditions):
    latent = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))

    def replaced(change):
        other = model.clone()
        other.set_model_patch_replace(change, "dit", "single_block", 4)
        return predict(other, conditions, latent)

    expected = predict(model, conditions, latent)
    itself = replaced(lambda args, extra: extra["original_block"](args))
    assert all(map(torch.equal, itself, expected))
    assert not agree(replaced(lambda args, extra: args)[0], expected[0])


def test_half_precision(node, dit, folder, load, case, sample, monkeypatch):
    expected = load(saved(dit, folder, case))
    conditions = node("EntropyGuidanceClassCondition", model=expected, labels="3")
    monkeypatch.setattr(comfy.model_management, "unet_dtype", lambda **_: torch.float16)
    half = load(saved(dit, folder, case))
    assert half.model.diffusion_model.dtype == torch.float16
    assert_agree(drawn(sample, half, conditions, cfg=1.0).half(), drawn(sample, expected, conditions, cfg=1.0))


def test_weights_that_are_streamed_and_loaded_again(model, conditions):
    latent = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = predict(model, conditions, latent)
    comfy.model_management.unload_all_models()
    model.load(model.load_device, lowvram_model_memory=1)
    assert model.model.model_lowvram
    try:
        streamed = predict(model, conditions, latent)
    finally:
        comfy.model_management.unload_all_models()
    reload, arguments = model.cached_patcher_init
    for found in (streamed, predict(reload(*arguments, disable_dynamic=True), conditions, latent)):
        assert_agree(found[0], expected[0])


def test_files_of_a_training(node, dit, folder, load, sample):
    """Averaged weights among others, and the arguments, of a network whose heads its width tells."""
    shape = dit.DitShape(384, 1, 6, 8, 4, 11)
    torch.manual_seed(0)
    weights = {name: torch.randn_like(weight) / 20 for name, weight in dit.DiT(shape, torch.nn).state_dict().items()}
    others = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    checkpoint = {"model": others, "ema": weights, "opt": {"state": {}}, "args": Namespace(model="DiT-S/8", epochs=1)}
    torch.save(checkpoint, folder / "DiT-mine-0400000.pt")
    torch.save(weights, folder / "DiT-published.pt")
    pictures = []
    for name in ("DiT-mine-0400000.pt", "DiT-published.pt"):
        model = load(folder / name)
        assert model.model.class_names == tuple(map(str, range(CLASSES))) and model.model.null_class == CLASSES
        pictures.append(drawn(sample, model, node("EntropyGuidanceClassCondition", model=model, labels="3")))
    assert torch.equal(*pictures) and pictures[0].std() > 0.01


def test_what_metadata_say_goes_before_the_name(dit, folder, load):
    case = CASES["DiT-S/2 256"]
    assert load(saved(dit, folder, case, prediction="flow")).model.model_type.name == "FLOW"
    labels = [f"class {i}" for i in range(CLASSES + 1)]  # of all rows: it was trained without a null class
    assert load(saved(dit, folder, case, labels=json.dumps(labels))).model.null_class is None


def without(*keys):
    return lambda weights: {key: weight for key, weight in weights.items() if key not in keys}


def reshaped(key, *shape):
    return lambda weights: {**weights, key: torch.zeros(shape)}


def unchanged(weights):
    return weights


@pytest.mark.parametrize(
    ("change", "metadata", "message"),
    [
        (without("pos_embed"), {}, "not the weights of a DiT or SiT in their authors' layout"),
        (without("blocks.3.attn.qkv.bias"), {}, "1 weights are missing and 0 unknown, such as blocks.3.attn.qkv.bias"),
        (reshaped("blocks.0.attn.q_norm.weight", 4), {}, "1 unknown, such as blocks.0.attn.q_norm.weight"),
        (reshaped("pos_embed", 1, 255, 24), {}, r"'pos_embed' is \(1, 255, 24\) rather than \(1, 225, 24\)"),
        (reshaped("x_embedder.proj.weight", 24, 16, 2, 2), {}, "latents of 16 channels; those of .* have 4"),
        (reshaped("final_layer.linear.weight", 12, 24), {}, r"'final_layer.linear.weight' is \(12, 24\)"),
        (reshaped("y_embedder.embedding_table.weight", 0, 24), {}, "some of its weights are empty"),
        (unchanged, {"num_heads": None}, "width of 24 is none of the published 384, 768, 1024, 1152"),
        (unchanged, {"num_heads": "7"}, "num_heads = 7 does not divide its width of 24"),
        (unchanged, {"num_heads": "some"}, "num_heads = 'some' is not a whole number"),
        (unchanged, {"prediction": ""}, "prediction = '' is unknown"),
        (unchanged, {"prediction": "v"}, r"prediction = 'v' is unknown: use eps \(DiT\) or flow \(SiT\)"),
        (unchanged, {"labels": '["a"]'}, "its metadata names 1 classes, and its weights have 11"),
    ],
)
def test_bad_files_are_refused(dit, folder, load, change, metadata, message):
    case = CASES["DiT-S/2 256"]
    metadata = {"num_heads": "6", **metadata}
    path = folder / "DiT-bad.safetensors"
    save_file(change(weights_of(dit, case)), path, {key: text for key, text in metadata.items() if text is not None})
    with pytest.raises(ValueError, match=f"model_name = 'DiT-bad.safetensors' cannot be loaded from .*{message}"):
        load(path)


@pytest.mark.parametrize("name", ["0400000.safetensors", "transit-edit.safetensors", "DiT-or-SiT.safetensors"])
def test_a_name_that_does_not_say_the_kind_is_refused(dit, folder, load, name):
    path = saved(dit, folder, CASES["DiT-S/2 256"]).rename(folder / name)
    with pytest.raises(
        ValueError, match=f"'{path.stem}' does not say whether .* rename the file, such as DiT-{path.stem}"
    ):
        load(path)


def test_other_networks_and_code_are_refused(folder, load, demo):
    save_file(demo[0].model.diffusion_model.state_dict(), folder / "DiT-flux.safetensors")
    with pytest.raises(ValueError, match="not the weights of a DiT or SiT"):
        load(folder / "DiT-flux.safetensors")
    torch.save({"ema": {}, "args": Path("a")}, folder / "DiT-code.pt")
    with pytest.raises(ValueError, match="holds more than weights, 'pathlib.* PosixPath', which is not run"):
        load(folder / "DiT-code.pt")
    with pytest.raises(ValueError, match="model_name = 'DiT-gone.pt' is not in ComfyUI's model folder"):
        load(folder / "DiT-gone.pt")


@pytest.mark.parametrize("size", [(64, 64), (32, 40)])
def test_latents_of_another_size_are_refused(model, conditions, sample, size):
    width, height = size[1] * 8, size[0] * 8
    message = f"draws pictures of 256 × 256 pixels alone, not of {width} × {height}. Set .* Empty Latent Image to 256"
    with pytest.raises(ValueError, match=message):
        drawn(sample, model, conditions, latent={"samples": torch.zeros(1, 4, *size)})
