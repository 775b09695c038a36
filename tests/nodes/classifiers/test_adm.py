"""Noise-aware classifiers: the published layout, the timestep found from ᾱ, loading, and what is refused."""

import json
import math
from dataclasses import replace

import folder_paths
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from benchmarks import in_process
from benchmarks.tolerance import assert_agree


@pytest.fixture(scope="module")
def adm(node):
    return in_process.pack_module("nodes.classifiers.adm")


@pytest.fixture(scope="module")
def adm_file(node):
    return in_process.pack_module("nodes.classifiers.adm_file")


@pytest.fixture(scope="module")
def schedules(node):
    return in_process.pack_module("nodes.classifiers.adm_schedules").SCHEDULES


@pytest.fixture(scope="module")
def config(adm):
    """A small classifier of latents."""
    return adm.AdmConfig(16, 4, 32, 1, (1, 2), (1,), classes=5, head_channels=32, schedule="flow")


def classifier_of(adm, config, seed=0, dtype=torch.float32):
    """All its weights are random, those that start at zero too, and large enough for attention to be uneven."""
    torch.manual_seed(seed)
    with torch.inference_mode(False):
        classifier = adm.NoiseAwareClassifier(adm.AdmEncoder(config), config).to(dtype)
        for weight in classifier.parameters():
            torch.nn.init.normal_(weight, std=0.15).requires_grad_(False)
    return classifier


def noisy(config, count=2, dtype=torch.float32):
    shape = (count, config.in_channels, config.image_size, config.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


# Of https://github.com/openai/guided-diffusion; weights are counted in networks that its own code builds.
PUBLISHED = {
    64: (4, (1, 2, 3, 4), (1, 2, 3), 65_438_568, "cosine"),
    128: (2, (1, 1, 2, 3, 4), (2, 3, 4), 42_568_040, "linear"),
    256: (2, (1, 1, 2, 2, 4, 4), (3, 4, 5), 54_096_360, "linear"),
    512: (2, (0.5, 1, 1, 2, 2, 4, 4), (4, 5, 6), 54_448_360, "linear"),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_layouts(adm, adm_file, size):
    depth, multipliers, attention, count, schedule = PUBLISHED[size]
    config = adm.AdmConfig(size, 3, 128, depth, multipliers, attention, classes=1000, schedule=schedule)
    with torch.device("meta"):
        weights = adm.AdmEncoder(config).state_dict()
    first = int(128 * multipliers[0])
    shapes = {
        "time_embed.0.weight": (512, 128),
        "input_blocks.0.0.weight": (first, 3, 3, 3),
        "input_blocks.1.0.in_layers.0.weight": (first,),
        "input_blocks.1.0.emb_layers.1.weight": (2 * first, 512),
        "middle_block.1.qkv.weight": (1536, 512, 1),
        "middle_block.2.out_layers.3.weight": (512, 512, 3, 3),
        "out.0.weight": (512,),
        "out.2.positional_embedding": (512, 65),
        "out.2.qkv_proj.weight": (1536, 512, 1),
        "out.2.c_proj.weight": (1000, 512, 1),
    }
    assert {key: tuple(weights[key].shape) for key in shapes} == shapes
    assert sum(weight.numel() for weight in weights.values()) == count
    assert adm_file.is_adm(weights)
    classifier, labels, _ = adm_file.load(weights, {}, f"{size}x{size}_classifier")
    assert adm_file._config(weights, {}, f"{size}x{size}_classifier") == config
    assert (classifier.channels, classifier.image_size, len(labels), labels[0]) == (3, size, 1000, "tench")


def test_other_layouts_are_not_taken_for_it(adm_file, demo):
    from torchvision.models import get_model

    for network in (get_model("resnet18"), demo[0].model.diffusion_model):
        assert not adm_file.is_adm(network.state_dict())


def of_the_layout(w, config, x, timesteps):
    """The network once more, from a state dict w alone, with attention written out."""

    def norm(name, h):
        return F.group_norm(h, 32, w[f"{name}.weight"], w[f"{name}.bias"])

    def conv(name, h):
        kernel = w[f"{name}.weight"]
        return (F.conv2d if kernel.ndim == 4 else F.conv1d)(h, kernel, w[f"{name}.bias"], padding=kernel.shape[-1] // 2)

    def linear(name, h):
        return F.linear(h, w[f"{name}.weight"], w[f"{name}.bias"])

    def residual(name, h, down):
        inner = F.silu(norm(f"{name}.in_layers.0", h))
        if down:
            inner, h = F.avg_pool2d(inner, 2), F.avg_pool2d(h, 2)
        scale, shift = linear(f"{name}.emb_layers.1", F.silu(time))[..., None, None].chunk(2, 1)
        inner = norm(f"{name}.out_layers.0", conv(f"{name}.in_layers.2", inner)) * (1 + scale) + shift
        inner = conv(f"{name}.out_layers.3", F.silu(inner))
        return inner + (conv(f"{name}.skip_connection", h) if f"{name}.skip_connection.weight" in w else h)

    def head(q, k, v):  # each [B, features, positions]
        return v @ torch.softmax(q.mT @ k / math.sqrt(q.shape[1]), -1).mT

    def attention(name, h):
        qkv = conv(f"{name}.qkv", norm(f"{name}.norm", h.flatten(2)))
        heads = [head(*of_head.chunk(3, 1)) for of_head in qkv.split(3 * config.head_channels, 1)]
        return h + conv(f"{name}.proj_out", torch.cat(heads, 1)).view_as(h)

    def block(name, h, down=False):
        h = residual(f"{name}.0", h, down)
        return attention(f"{name}.1", h) if f"{name}.1.qkv.weight" in w else h

    half = config.width // 2
    angles = timesteps[:, None] * 10000 ** (-torch.arange(half) / half)
    time = linear("time_embed.0", torch.cat([angles.cos(), angles.sin()], 1).to(x.dtype))
    time = linear("time_embed.2", F.silu(time))
    h = conv("input_blocks.0.0", x)
    for i in range(1, len(config.multipliers) * (config.depth + 1)):
        h = block(f"input_blocks.{i}", h, down=i % (config.depth + 1) == 0)
    h = residual("middle_block.2", block("middle_block", h), False)
    h = F.silu(norm("out.0", h)).flatten(2)
    tokens = torch.cat([h.mean(-1, keepdim=True), h], -1) + w["out.2.positional_embedding"]
    q, k, v = (part.split(config.head_channels, 1) for part in conv("out.2.qkv_proj", tokens).chunk(3, 1))
    return conv("out.2.c_proj", torch.cat([head(*qkv) for qkv in zip(q, k, v)], 1))[..., 0]


def test_the_network_is_that_of_the_layout(adm, config):
    config = replace(config, depth=2, multipliers=(1, 3, 2), attention_levels=(1, 2))
    network, x = classifier_of(adm, config, dtype=torch.float64).network, noisy(config, dtype=torch.float64)
    timesteps = torch.tensor([3.0, 870.5])
    expected = of_the_layout(network.state_dict(), config, x, timesteps)
    assert expected.std() > 0.1
    assert_agree(network(x, timesteps), expected.float())  # ComfyUI embeds timesteps in float32


def test_a_new_network_can_be_trained(adm, config):
    """Each branch starts at zero, and all weights get gradients once these have left it."""
    with torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(0)
        classifier = adm.NoiseAwareClassifier(adm.AdmEncoder(config), config)
        optimizer = torch.optim.SGD(classifier.parameters(), lr=0.1)
        x, kept = noisy(config).clone(), torch.tensor([0.1, 0.9])
        losses = []
        for _ in range(4):
            losses.append(F.cross_entropy(classifier(x, kept), torch.tensor([0, 3])))
            optimizer.zero_grad()
            losses[-1].backward()
            optimizer.step()
    assert losses[-1] < losses[0]
    still = {name for name, weight in classifier.named_parameters() if not weight.grad.any()}
    assert not still - {"network.out.2.qkv_proj.bias"}


def cosine_betas():
    def signal(t):
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    return [min(1 - signal((i + 1) / 1000) / signal(i / 1000), 0.999) for i in range(1000)]


BETAS = {"linear": [1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)], "cosine": cosine_betas()}


@pytest.mark.parametrize("name", BETAS)
def test_timesteps_of_discrete_schedules(schedules, name):
    kept, product = [], 1.0
    for beta in BETAS[name]:
        product *= 1 - beta
        kept.append(product)
    kept = torch.tensor(kept, dtype=torch.float64)
    schedule, x = schedules[name](), torch.ones(1)
    torch.testing.assert_close(schedule(x, kept.float())[1], torch.arange(1000.0), rtol=0, atol=2e-3)
    between = 0.75 * kept[:-1] + 0.25 * kept[1:]
    torch.testing.assert_close(schedule(x, between.float())[1], torch.arange(999) + 0.25, rtol=0, atol=4e-3)
    same, ends = schedule(x, torch.tensor([1.0, 0.0]))
    assert ends.tolist() == [0, 999] and same is x


def test_flow_schedule(schedules):
    """x0 and noise that are known, mixed in one form and expected in the other."""
    t = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0])
    x0, noise = torch.randn(2, 5, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    kept = (1 - t).square() / ((1 - t).square() + t.square())
    mixed = kept.sqrt().view(5, 1, 1, 1) * x0 + (1 - kept).sqrt().view(5, 1, 1, 1) * noise
    x, timesteps = schedules["flow"]()(mixed, kept)
    torch.testing.assert_close(timesteps, 1000 * t)
    torch.testing.assert_close(x, (1 - t).view(5, 1, 1, 1) * x0 + t.view(5, 1, 1, 1) * noise)
    assert schedules["flow"]()(mixed, kept + 2e-7)[1].isfinite().all()


@pytest.mark.parametrize("schedule", ["linear", "flow"])
def test_gradients_are_those_of_finite_differences(adm, config, schedule):
    config = replace(config, schedule=schedule)
    classifier = classifier_of(adm, config, dtype=torch.float64)
    kept = torch.tensor([0.3], dtype=torch.float64)
    with torch.inference_mode(False):
        x = noisy(config, 1, torch.float64).clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda x: classifier(x, kept.clone()), x, fast_mode=True)


def test_gradients_inside_comfyuis_inference_mode(adm, adm_file, config, node):
    """Weights, tables and ᾱ may all be inference tensors."""
    normal_weights = in_process.pack_module("nodes.classifiers.normal_weights").NormalWeights()
    config = replace(config, schedule="linear")
    expected = classifier_of(adm, config)
    classifier, *_ = adm_file.load(
        {key: weight.clone() for key, weight in expected.network.state_dict().items()}, adm.metadata_of(config, []), ""
    )
    classifier.requires_grad_(False)
    kept = torch.tensor([0.2, 0.7])
    assert kept.is_inference() and all(weight.is_inference() for weight in classifier.state_dict().values())
    with torch.inference_mode(False), torch.enable_grad():
        x = noisy(config).clone().requires_grad_()
        (gradient,) = torch.autograd.grad(normal_weights(classifier, x, kept)[:, 1].sum(), x)
        (direct,) = torch.autograd.grad(expected(x, kept.clone())[:, 1].sum(), x)
    assert direct.any()
    assert_agree(gradient, direct)


@pytest.fixture
def folder(node, tmp_path):
    before = folder_paths.folder_names_and_paths["classifiers"]
    folder_paths.add_model_folder_path("classifiers", str(tmp_path))
    yield tmp_path
    before[0].remove(str(tmp_path))


def test_round_trip_of_a_published_file(adm, config, folder, node):
    config = replace(config, classes=1000, head_channels=64, schedule="linear")
    expected = classifier_of(adm, config)
    torch.save(expected.network.state_dict(), folder / "16x16_classifier.pt")
    loaded = node("EntropyGuidanceLoadClassifier", classifier_name="16x16_classifier.pt")[0]
    assert loaded.noise_aware and loaded.labels[281] == "tabby" and len(loaded.labels) == 1000
    x, kept = noisy(config), torch.tensor([0.01, 0.6])
    assert_agree(loaded.patcher.model(x, kept), expected(x, kept))


@pytest.mark.parametrize("half", [False, True])
def test_round_trip_of_a_trained_file(adm, config, folder, node, half):
    expected = classifier_of(adm, config)
    if half:
        expected = expected.half().float()
    weights = {key: weight.half() if half else weight for key, weight in expected.network.state_dict().items()}
    labels = ["a", "b", "c", "d", "e"]
    save_file(weights, folder / "shapes.safetensors", adm.metadata_of(config, labels))
    loaded = node("EntropyGuidanceLoadClassifier", classifier_name="shapes.safetensors")[0]
    assert loaded.noise_aware and loaded.labels == tuple(labels)
    x, kept = noisy(config), torch.tensor([0.01, 0.6])
    assert_agree(loaded.patcher.model(x, kept), expected(x, kept))


def test_classifiers_of_clean_pictures_stay_what_they_are(folder, node):
    from torchvision.models import get_model

    torch.save(get_model("mobilenet_v3_small", num_classes=2).state_dict(), folder / "mobilenet_v3_small.pt")
    for name in ("mobilenet_v3_small.pt", "entropy-guidance-demo"):
        assert not node("EntropyGuidanceLoadClassifier", classifier_name=name)[0].noise_aware


def without(*keys):
    return lambda weights: {key: weight for key, weight in weights.items() if key not in keys}


def reshaped(key, *shape):
    return lambda weights: {**weights, key: torch.zeros(shape)}


def unchanged(weights):
    return weights


@pytest.mark.parametrize(
    ("change", "metadata", "message"),
    [
        (unchanged, {"image_size": None}, "'my_classifier' does not say the size .* let the file's name begin with it"),
        (unchanged, {"image_size": "large"}, "image_size = 'large' is not a whole number from 1"),
        (unchanged, {"image_size": "24"}, "not the weights of a classifier of 24 × 24: its 4 blocks end at 8 × 8"),
        (unchanged, {"image_size": "32"}, "not the weights of a classifier of 32 × 32"),
        (unchanged, {"noise_schedule": "sigmoid"}, "noise_schedule = 'sigmoid' is unknown: use one of linear, cosine"),
        (unchanged, {"num_head_channels": "0"}, "num_head_channels = '0' is not a whole number"),
        (unchanged, {"num_head_channels": "48"}, r"num_head_channels = 48 does not divide \[64\]"),
        (unchanged, {"labels": "a, b"}, "labels = 'a, b' in the metadata is not a JSON list"),
        (unchanged, {"labels": json.dumps(["a"])}, "the network has 5 classes, but its files name 1"),
        (without("out.2.c_proj.weight"), {}, "weight 'out.2.c_proj.weight' of 3 dimensions is missing"),
        (without("out.0.bias", "out.0.weight"), {}, "2 weights are missing and 0 unknown, such as out.0.bias"),
        (reshaped("label_emb.weight", 1), {}, "0 weights are missing and 1 unknown, such as label_emb.weight"),
        (reshaped("time_embed.2.bias", 3), {}, r"weight 'time_embed.2.bias' is \(3,\) rather than \(128,\)"),
        (reshaped("out.2.positional_embedding", 0), {}, "weight 'out.2.positional_embedding' of 2 dimensions is"),
        (reshaped("input_blocks.1.0.out_layers.3.weight", 40, 40, 3, 3), {}, r"\[40, 64\] channels: use multiples of"),
        (reshaped("time_embed.0.weight", 128, 0), {}, r"\[0, 0\] channels: use multiples of"),
        (reshaped("out.2.c_proj.weight", 0, 64, 1), {}, "the network has no classes"),
    ],
)  # fmt: skip
def test_bad_files_are_refused(adm, config, folder, node, change, metadata, message):
    weights = change(adm.AdmEncoder(config).state_dict())
    metadata = {**adm.metadata_of(config, list("abcde")), **metadata}
    save_file(weights, folder / "my_classifier.safetensors", {key: text for key, text in metadata.items() if text})
    with pytest.raises(ValueError, match=f"classifier_name = 'my_classifier.safetensors'.*{message}"):
        node("EntropyGuidanceLoadClassifier", classifier_name="my_classifier.safetensors")


def test_pictures_that_no_memory_could_hold_are_refused(adm, folder, node):
    """A file of some megabytes, whose many levels bring 8192 pixels to 8."""
    config = adm.AdmConfig(8192, 3, 32, 1, (1,) * 11, (), classes=2, head_channels=32)
    save_file(adm.AdmEncoder(config).state_dict(), folder / "huge.safetensors", adm.metadata_of(config, ["a", "b"]))
    with pytest.raises(ValueError, match="would take a tensor of .1, 3, 8192, 8192."):
        node("EntropyGuidanceLoadClassifier", classifier_name="huge.safetensors")


def test_the_file_names_a_size_that_the_weights_have_not(adm, config, folder, node):
    torch.save(adm.AdmEncoder(config).state_dict(), folder / "64x64_classifier.pt")
    with pytest.raises(ValueError, match="not the weights of a classifier of 64 × 64"):
        node("EntropyGuidanceLoadClassifier", classifier_name="64x64_classifier.pt")


def test_prompts_are_refused(adm, config, folder, node):
    torch.save(adm.AdmEncoder(config).state_dict(), folder / "16x16_classifier.pt")
    with pytest.raises(ValueError, match="Leave prompts empty"):
        node("EntropyGuidanceLoadClassifier", classifier_name="16x16_classifier.pt", prompts="a\nb")


@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (1, 4, 16, 24), (1, 4, 1, 16, 16)])
def test_other_sizes_are_refused(adm, config, shape):
    with pytest.raises(ValueError, match=f"reads 4 channels of 16 × 16.*has {' × '.join(map(str, shape[1:]))}"):
        classifier_of(adm, config)(torch.zeros(shape), torch.tensor([0.5]))


def test_configs_that_cannot_be_built_are_refused(adm, config):
    with pytest.raises(ValueError, match="image_size = 17 cannot be halved for 2 levels"):
        replace(config, image_size=17)
