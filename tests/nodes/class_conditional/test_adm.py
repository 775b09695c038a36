"""guided-diffusion's models in ComfyUI: equal to their own code, and good for whatever a model of ComfyUI is good for."""

import hashlib
import json
from pathlib import Path

import comfy.sd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from benchmarks.in_process import pack_module

REFERENCE = Path(__file__).with_name("guided_diffusion.safetensors")
MULTIPLIERS = {64: (1, 2, 3, 4), 128: (1, 1, 2, 3, 4), 256: (1, 1, 2, 2, 4, 4), 512: (0.5, 1, 1, 2, 2, 4, 4)}
# Name, size, width, blocks of a level, and classes, as published.
PUBLISHED = {
    "64x64_diffusion": (64, 192, 3, 1000),
    "128x128_diffusion": (128, 256, 2, 1000),
    "256x256_diffusion": (256, 256, 2, 1000),
    "256x256_diffusion_uncond": (256, 256, 2, 0),
    "512x512_diffusion": (512, 256, 2, 1000),
}
NAMES = [f"kind {i}" for i in range(10)]


def network(name: str, width: int | None = None, classes: int | None = None, head_channels: int = 64):
    """A published network, shrunk where asked; without weights of its own."""
    size, published_width, depth, published_classes = PUBLISHED[name]
    adm = pack_module("nodes.class_conditional.adm_unet")
    levels = [level for level in range(len(MULTIPLIERS[size])) if size >> level in (32, 16, 8)]
    shape = adm.AdmShape(
        width or published_width, depth, MULTIPLIERS[size], tuple(levels),
        published_classes if classes is None else classes,
        head_channels=None if size == 128 else head_channels, split_first=size == 64,
    )  # fmt: skip
    return adm.AdmUNet(shape)


def random_weights(expected: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights that the reference's numbers were made with: in order of their names, from one generator."""
    generator, weights = torch.Generator().manual_seed(0), {}
    for key in sorted(expected):
        noise = torch.randn(expected[key].shape, generator=generator)
        if noise.ndim == 1:
            weights[key] = 1 + 0.1 * noise if key.endswith("weight") else 0.1 * noise
        else:
            weights[key] = noise if "label_emb" in key else noise * noise[0].numel() ** -0.5
    return weights


def shrunk(name: str) -> dict[str, torch.Tensor]:
    """Weights of a published network with few features and ten classes."""
    small = network(name, 64 if name.startswith("512") else 32, 10 if PUBLISHED[name][3] else 0, 32)
    return random_weights(small.state_dict())


@pytest.fixture
def load(node, tmp_path):
    """load(name, weights, **metadata) gives the MODEL that the node makes of a file."""
    import folder_paths

    folders = folder_paths.folder_names_and_paths["diffusion_models"]
    folder_paths.folder_names_and_paths["diffusion_models"] = ([*folders[0], str(tmp_path)], folders[1])

    def load_file(name, weights, **metadata):
        if name.endswith(".safetensors"):
            save_file(weights, tmp_path / name, metadata or None)
        else:
            torch.save(weights, tmp_path / name)
        return node("EntropyGuidanceLoadADM", model_name=name)[0]

    yield load_file
    folder_paths.folder_names_and_paths["diffusion_models"] = folders


@pytest.fixture
def small(load):
    """load for a published network, shrunk."""

    def load_small(name="64x64_diffusion", **metadata):
        labels = {"labels": json.dumps(NAMES)} if PUBLISHED[name][3] else {}
        heads = {} if name.startswith("128") else {"num_head_channels": "32"}
        return load(f"{name}.safetensors", shrunk(name), **labels, **heads, **metadata)

    return load_small


@pytest.fixture
def twin(node):
    """MODEL, positive CONDITIONING of two classes, null class of the bundled model."""
    (model,) = node("EntropyGuidanceLoadADM")
    return model, *node("EntropyGuidanceClassCondition", model=model, labels="red circle, blue square")


@pytest.fixture
def pixels(sample):
    """sample() on an empty picture of 32 × 32 for two."""

    def draw(model, positive, negative, latent=None, **options):
        return sample(
            model,
            positive,
            negative,
            latent=latent or {"samples": torch.zeros(2, 3, 32, 32)},
            scheduler="normal",
            **options,
        )

    return draw


@pytest.mark.parametrize("name", PUBLISHED)
def test_state_dicts_have_the_published_keys_and_shapes(node, name):
    with safe_open(REFERENCE, "pt") as file:
        published = json.loads(file.metadata()["published"])[name]
    with torch.device("meta"):
        expected = network(name).state_dict()
    lines = sorted(f"{key} {list(weight.shape)}" for key, weight in expected.items())
    assert len(lines) == published["weights"]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == published["sha256"]


def test_channels_of_a_level_are_whole_whatever_the_width(node):
    shape = pack_module("nodes.class_conditional.adm_unet").AdmShape
    for width, channels in ((352, 480), (416, 480), (224, 1952)):
        assert shape(width, 1, (channels / width,), (), head_channels=32).level_channels == [channels]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_loaded_network_equals_guided_diffusions_own(small, name):
    """Noise and learned variance, of the same weights, pictures, timesteps and classes."""
    model = small(name).model
    side = 2 ** (len(MULTIPLIERS[PUBLISHED[name][0]]) - 1)
    x = torch.randn(2, 3, side, 2 * side if side < 32 else side, generator=torch.Generator().manual_seed(1))
    table = model.diffusion_model.class_table
    context = None if table is None else table[[3, 7]][:, None]
    told = []

    class Asked:
        take = staticmethod(lambda values, labels: told.append(values))

    options = {pack_module("nodes.classifiers.learned_variance").KEY: Asked, "cond_or_uncond": [0]}
    noise = model.diffusion_model(x, torch.tensor([17, 803]), context, transformer_options=options)
    with safe_open(REFERENCE, "pt") as file:
        expected = file.get_tensor(name)
    torch.testing.assert_close(torch.cat([noise, *told], 1)[..., ::4, ::4], expected, atol=1e-4, rtol=1e-4)


LINEAR = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
_COSINE = torch.cos((torch.arange(1001, dtype=torch.float64) / 1000 + 0.008) / 1.008 * torch.pi / 2).square()
COSINE = _COSINE[1:] / _COSINE[0]


@pytest.mark.parametrize("name, kept", [("64x64_diffusion", COSINE), ("128x128_diffusion", LINEAR)])
def test_schedules_are_the_checkpoints_own(small, name, kept):
    """ᾱ of all timesteps but the last, where the cosine is cut off."""
    found = 1 / (1 + small(name).model.model_sampling.sigmas.double().square())
    torch.testing.assert_close(found[:-1], kept[:-1], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "metadata", "heads", "split_first"),
    [
        ("64x64_diffusion", {}, [2, 3, 4], True),
        ("64x64_diffusion", {"use_new_attention_order": "False"}, [2, 3, 4], False),
        ("256x256_diffusion", {"use_new_attention_order": "True", "num_heads": "2"}, [2, 2, 2], True),
        ("128x128_diffusion", {}, [4, 4, 4], False),
        ("128x128_diffusion", {"num_heads": "1"}, [1, 1, 1], False),
        ("128x128_diffusion", {"num_head_channels": "16"}, [4, 6, 8], False),
    ],
)
def test_how_heads_are_cut_is_the_metadatas_where_it_says_so(load, name, metadata, heads, split_first):
    heads_of_file = {} if "num_heads" in metadata or name.startswith("128") else {"num_head_channels": "32"}
    model = load("a network.safetensors", shrunk(name), **heads_of_file, **metadata)
    found = [m for m in model.model.diffusion_model.modules() if type(m).__name__ == "Attention"]
    assert sorted({attention.heads for attention in found}) == sorted({*heads})
    assert {attention.split_first for attention in found} == {split_first}


@pytest.mark.parametrize("ending", [".pt", ".PTH", ".ckpt"])
def test_a_state_dict_with_pickled_weights_loads_like_safetensors(load, small, ending):
    first = small("128x128_diffusion")
    second = load(f"copy of 128x128_diffusion{ending}", shrunk("128x128_diffusion"))
    assert first.model.class_names == tuple(NAMES) and second.model.class_names == tuple(map(str, range(10)))
    for a, b in zip(first.model.diffusion_model.parameters(), second.model.diffusion_model.parameters()):
        assert torch.equal(a, b)


def test_the_model_is_what_was_loaded_when_it_is_loaded_again(small):
    """ComfyUI makes a MODEL anew from its cached_patcher_init, for other devices."""
    model = small("128x128_diffusion")
    again = model.cached_patcher_init[0](*model.cached_patcher_init[1], disable_dynamic=True)
    ours, theirs = (m.model.diffusion_model.state_dict() for m in (model, again))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(
    "rows, labels, names", [(1000, None, 1000), (1001, None, 1000), (10, NAMES, 10), (11, NAMES, 10)]
)
def test_a_row_more_than_classes_is_the_null_class(load, rows, labels, names):
    weights = {**shrunk("128x128_diffusion"), "label_emb.weight": torch.zeros(rows, 128)}
    metadata = {"labels": json.dumps(labels)} if labels else {}
    model = load("128x128_diffusion.safetensors", weights, **metadata).model
    assert len(model.class_names) == names and model.null_class == (names if rows > names else None)
    assert labels or model.class_names[1] == "goldfish"


def test_a_class_is_drawn_by_every_way_to_name_it(node, twin, pixels):
    model, positive, null = twin
    by_number, _ = node("EntropyGuidanceClassCondition", model=model, labels="0\n7")
    assert torch.equal(positive[0][0], by_number[0][0]) and positive[0][0].shape == (2, 1, 128)
    nothing, _ = node("EntropyGuidanceClassCondition", model=model, labels="")
    assert torch.equal(nothing[0][0], null[0][0])
    one, _ = node("EntropyGuidanceClassCondition", model=model, labels="red circle")
    both, alone = pixels(model, positive, null), pixels(model, one, null)
    assert torch.allclose(both[0], alone[0], atol=1e-4) and not torch.allclose(both[1], alone[1], atol=0.1)


def test_a_merge_has_classes_of_its_own(node, twin, pixels):
    """Whichever of the two MODELs, which share a network, is loaded."""
    model, positive, _ = twin
    (merged,) = node("ModelMergeAdd", model1=model, model2=model)

    def embedding(of):
        (condition, _) = node("EntropyGuidanceClassCondition", model=of, labels="red circle, blue square")
        return condition[0][0]

    before = positive[0][0]
    for loaded in (model, merged, model):
        pixels(loaded, *twin[1:])
        torch.testing.assert_close(embedding(merged), 2 * before)
        assert torch.equal(embedding(model), before)


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "ddim", "euler_ancestral", "uni_pc", "heun"])
def test_samplers_draw_finite_pictures_of_their_own(twin, pixels, sampler):
    drawn = pixels(*twin, sampler=sampler, steps=4)
    assert drawn.shape == (2, 3, 32, 32) and drawn.isfinite().all() and drawn.std() > 0.05


@pytest.mark.parametrize("layers, first", [("middle", 3), ("0", 0), ("50%-100%", 5)])
def test_erg_reaches_attention_by_layer(node, twin, pixels, layers, first):
    """The first layer whose two branches differ, both of the same class, is the first that was asked for."""
    model, positive, _ = twin
    layers_of = [m for m in model.model.diffusion_model.modules() if type(m).__name__ == "Attention"]
    differ = {}

    def compare(layer, inputs, output):
        strong, weak = (output - inputs[0]).chunk(2)
        number = layers_of.index(layer)
        differ[number] = differ.get(number, False) or not torch.allclose(strong, weak, atol=1e-5)

    hooks = [layer.register_forward_hook(compare) for layer in layers_of]
    try:
        erg = node("EntropyGuidanceERG", model=model, layers=layers, temperature=0.0, share_trunk=False)[0]
        pixels(erg, positive, positive, steps=1, cfg=2.0)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(differ) == 10 and min(layer for layer in differ if differ[layer]) == first


def test_guidance_changes_the_picture_and_composes(node, twin, pixels):
    """CFG, ERG, CADS, APG and classifier guidance, each beside plain sampling and together."""
    model, positive, null = twin
    classifier = node("EntropyGuidanceLoadClassifier", classifier_name="entropy-guidance-demo-classes")[0]
    score = node("EntropyGuidanceScore", classifier=classifier, labels="red circle, blue square")[0]

    def erg(m):
        return node("EntropyGuidanceERG", model=m)[0]

    def cads(m):
        return node("EntropyGuidanceCADS", model=m, noise_scale=0.5)[0]

    def apg(m):
        return node("APG", model=m, eta=0.5, norm_threshold=5.0, momentum=0.0)[0]

    def classified(m):
        return node("EntropyGuidanceApply", model=m, score=score, scale=0.3)[0]

    plain, cfg = pixels(model, positive, null, cfg=1.0), pixels(model, positive, null, cfg=2.0)
    drawn = [plain, cfg]
    for patch in (erg, cads, apg, classified, lambda m: classified(apg(cads(erg(m))))):
        drawn.append(pixels(patch(model), positive, null, cfg=2.0))
        assert drawn[-1].isfinite().all()
        assert all((drawn[-1] - other).abs().max() > 1e-3 for other in drawn[:-1])
    assert torch.equal(pixels(model, positive, null, cfg=2.0), cfg)


def test_a_noise_aware_classifier_of_pixels_guides(node, twin, pixels):
    model, positive, null = twin
    classifier = node("EntropyGuidanceLoadClassifier", classifier_name="entropy-guidance-demo-classes-noise-aware")[0]
    score = node("EntropyGuidanceScore", classifier=classifier, labels="green triangle", divergence="none")[0]
    guided = node("EntropyGuidanceApply", model=model, score=score, scale=2.0, normalize=False)[0]
    plain = pixels(model, positive, null, cfg=1.0)
    assert (pixels(guided, positive, null, cfg=1.0) - plain).abs().max() > 1e-3


def test_a_picture_is_where_image_to_image_starts(node, twin, pixels):
    (vae,) = node("VAELoader", vae_name="pixel_space")
    image = torch.rand(2, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    (latent,) = node("VAEEncode", pixels=image, vae=vae)
    little, much = (pixels(*twin, latent=latent, denoise=d, steps=10) for d in (0.1, 0.9))
    start = latent["samples"]
    assert (little - start).abs().mean() < (much - start).abs().mean()
    (drawn,) = node("VAEDecode", vae=vae, samples={"samples": much})
    assert drawn.shape == (2, 32, 32, 3) and 0 <= drawn.min() and drawn.max() <= 1


def test_predictions_are_held_to_the_range_of_pictures(node, pixels):
    held, free = [], []

    def look(seen):
        return lambda args: seen.append(args["denoised"].abs().max().item()) or args["denoised"]

    for clip, seen in ((True, held), (False, free)):
        (model,) = node("EntropyGuidanceLoadADM", clip_denoised=clip)
        positive, null = node("EntropyGuidanceClassCondition", model=model, labels="red circle")
        model = model.clone()
        model.set_model_sampler_post_cfg_function(look(seen))
        pixels(model, positive, null, cfg=4.0)
    assert max(held) == 1 < max(free)


def test_half_precision_and_parts_off_the_device_draw_the_same(node, twin, pixels):
    from comfy.cli_args import args

    model, positive, null = twin
    whole = pixels(model, positive, null)
    args.fp16_unet = True
    try:
        args.fp32_unet = False
        (half,) = node("EntropyGuidanceLoadADM")
    finally:
        args.fp16_unet, args.fp32_unet = False, True
    assert half.model.get_dtype() == torch.float16
    # A step amplifies rounding by up to sigma; pictures lie in -1..1.
    assert (pixels(half, positive, null) - whole).abs().mean() < 0.05
    low = model.clone()
    low.partially_load(low.load_device, 0)  # nothing but what must be on the device
    assert torch.equal(pixels(low, positive, null), whole)


def damaged(weights: dict, **changes) -> dict:
    """With other weights, or without those that are None."""
    return {key: weight for key, weight in {**weights, **changes}.items() if weight is not None}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda w: {"weight": torch.zeros(3)}, "not the weights of a U-Net of guided-diffusion"),
        (lambda w: damaged(w, **{"input_blocks.0.0.weight": torch.zeros(32, 6, 3, 3)}), "this is an upsampler"),
        (lambda w: damaged(w, **{"input_blocks.0.0.weight": torch.zeros(32, 4, 3, 3)}), "reads 4 channels"),
        (lambda w: damaged(w, **{"out.0.bias": None}), "1 weights are missing and 0 unknown, such as out.0.bias"),
        (lambda w: damaged(w, extra=torch.zeros(1)), "0 weights are missing and 1 unknown, such as extra"),
        (lambda w: damaged(w, **{"out.0.bias": torch.zeros(7)}), r"'out.0.bias' is \(7,\) rather than \(32,\)"),
        (lambda w: damaged(w, **{"time_embed.0.weight": torch.zeros(0, 0)}), "channels"),
    ],
)
def test_other_files_are_refused_by_name(load, change, message):
    with pytest.raises(ValueError, match=message) as refused:
        load("a file.safetensors", change(shrunk("64x64_diffusion")), num_head_channels="32")
    assert "model_name = 'a file.safetensors' cannot be loaded from" in str(refused.value)


def test_levels_that_plain_convolutions_join_are_named(load):
    """guided-diffusion's own default for a training, which none of the published models has."""
    weights = {
        key.replace("input_blocks.2.0.in_layers.2", "input_blocks.2.0.op"): w
        for key, w in shrunk("64x64_diffusion").items()
    }
    with pytest.raises(ValueError, match="joined by plain convolutions"):
        load("a file.safetensors", weights, num_head_channels="32")


def test_an_attention_order_that_is_neither_is_refused(small):
    with pytest.raises(
        ValueError, match="use_new_attention_order in the metadata = 'true': it must be one of True, False"
    ):
        small(use_new_attention_order="true")


def test_a_checkpoint_that_comfyui_saved_is_read(twin, load, tmp_path):
    """As by its node Save Model, which keeps no labels."""
    model, *_ = twin
    comfy.sd.save_checkpoint(str(tmp_path / "saved.safetensors"), model)
    metadata = {"num_head_channels": "16"}
    again = load("again.safetensors", load_file(tmp_path / "saved.safetensors"), **metadata)
    ours, theirs = (of.model.diffusion_model.state_dict() for of in (model, again))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_nothing_in_a_file_is_executed(load):
    import os

    class Harmful:
        def __reduce__(self):
            return os.mkdir, ("executed",)

    with pytest.raises(ValueError, match="holds more than weights, 'posix mkdir', which is not run"):
        load("harmful.pt", {"weight": Harmful()})
    assert not Path("executed").exists()


def test_what_does_not_fit_a_model_is_refused_before_the_first_step(node, demo, twin, small, pixels, encode):
    model, positive, null = twin
    text = encode(demo[1], "a red circle")
    with pytest.raises(ValueError, match="draws classes and reads no text, so that it has no C-ERG"):
        pixels(model, text, null)
    with pytest.raises(ValueError, match="Wire a model of Load ADM"):
        node("EntropyGuidanceClassCondition", model=demo[0], labels="red")
    three, _ = node("EntropyGuidanceClassCondition", model=model, labels="0, 1, 2")
    with pytest.raises(ValueError, match="labels has 3 classes for a batch of 2 images"):
        pixels(model, three, null)
    with pytest.raises(ValueError, match="multiples of 8, and this one is 36 × 36"):
        pixels(model, positive, null, latent={"samples": torch.zeros(2, 3, 36, 36)})
    with pytest.raises(ValueError, match="draws 3 channels, and the latent has"):
        pixels(model, positive, null, latent={"samples": torch.ones(2, 4, 32, 32)})
    with pytest.raises(ValueError, match="the model knows no class 'red cirle'. Did you mean 'red circle'"):
        node("EntropyGuidanceClassCondition", model=model, labels="red cirle")
    with pytest.raises(ValueError, match="there is no class 18; the model has 18"):
        node("EntropyGuidanceClassCondition", model=model, labels="18")


def test_a_classifier_that_does_not_fit_is_refused(node, demo, twin):
    model, *_ = twin
    of_colours = node("EntropyGuidanceLoadClassifier")[0]
    score = node("EntropyGuidanceScore", classifier=of_colours, labels="red")[0]
    with pytest.raises(ValueError, match="'entropy-guidance-demo' knows 6 classes, and the model draws 18"):
        node("EntropyGuidanceApply", model=model, score=score)
    of_classes = node("EntropyGuidanceLoadClassifier", classifier_name="entropy-guidance-demo-classes")[0]
    score = node("EntropyGuidanceScore", classifier=of_classes, labels="red circle")[0]
    with pytest.raises(ValueError, match="vae: it decodes 4 channels, but the model's latents have 3. Wire none"):
        node("EntropyGuidanceApply", model=model, score=score, vae=demo[2])


def test_a_model_without_a_null_class_says_so_where_it_is_used(node, small, pixels):
    from comfy_execution.graph_utils import ExecutionBlocker

    model = small("128x128_diffusion")
    positive, null = node("EntropyGuidanceClassCondition", model=model, labels="kind 3")
    assert isinstance(null, ExecutionBlocker) and "trained without one" in null.message
    with pytest.raises(ValueError, match="labels is empty, and this model has no null class"):
        node("EntropyGuidanceClassCondition", model=model, labels=" ")
    assert pixels(node("EntropyGuidanceERG", model=model)[0], positive, positive).isfinite().all()


def test_an_unconditional_model_takes_no_class(node, small, pixels):
    model = small("256x256_diffusion_uncond")
    positive, negative = node("EntropyGuidanceClassCondition", model=model, labels="")
    assert pixels(model, positive, negative).isfinite().all()
    with pytest.raises(ValueError, match="unconditional and has no classes. Leave labels empty"):
        node("EntropyGuidanceClassCondition", model=model, labels="goldfish")
