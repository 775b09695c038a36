"""Loading classifiers of every format that artists have, and refusing what is damaged or dangerous."""

import json
import math
import os
import pickle
import shutil
import sys
import traceback
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import comfy.model_management
import folder_paths
import pytest
import torch
import transformers
from odd_names import need_odd_names
from safetensors.torch import load_file, save, save_file
from small_classifiers import save_align, save_clip, save_siglip
from torchvision.models import ResNet18_Weights, get_model

import nodes
from benchmarks.in_process import pack_module
from benchmarks.tolerance import assert_agree
from demo.scenes import COLOURS


@pytest.fixture(scope="module")
def others(node):
    """The classifiers of the ComfyUI that the tests run on."""
    return set(pack_module("nodes.classifiers.files").classifier_names())


@pytest.fixture(scope="module")
def folder(others, tmp_path_factory):
    """A model folder of the user's, with a classifier of each kind."""
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

    root = tmp_path_factory.mktemp("classifiers")
    torch.manual_seed(0)
    names = {0: "cat", 1: "dog", 2: "fox, red fox"}
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1], "layer_type": "basic"}
    ResNetForImageClassification(ResNetConfig(**sizes, id2label=names)).save_pretrained(root / "animals")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(root / "animals")
    save_clip(root / "zero-shot")
    torch.save(get_model("resnet18").state_dict(), root / "resnet18-f37072fd.pth")
    small = get_model("mobilenet_v3_small", num_classes=2).state_dict()
    metadata = {"labels": json.dumps(["day", "night"]), "architecture": "mobilenet_v3_small"}
    save_file(small, root / "light.safetensors", metadata)
    save_file(small, root / "mobilenet_v3_small.safetensors")
    before = folder_paths.folder_names_and_paths["classifiers"]
    folder_paths.add_model_folder_path("classifiers", str(root))
    yield root
    folder_paths.folder_names_and_paths["classifiers"] = before
    before[0].remove(str(root))


@pytest.fixture
def load(node, folder):
    def load_classifier(name, **inputs):
        return node("EntropyGuidanceLoadClassifier", classifier_name=name, **inputs)[0]

    return load_classifier


IMAGES = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))


def test_lists_the_demo_and_every_model_below_the_folders(folder, others):
    names = pack_module("nodes.classifiers.files").classifier_names()
    assert names[:3] == [f"entropy-guidance-demo{kind}" for kind in ("", "-classes", "-classes-noise-aware")]
    assert [name for name in names if name not in others] == [
        "animals", "light.safetensors", "mobilenet_v3_small.safetensors", "resnet18-f37072fd.pth", "zero-shot",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["animals", "light.safetensors"])
def test_a_classifier_that_was_written_anew_has_another_fingerprint(folder, name):
    """By its time or size, so that ComfyUI does not take the old one from its cache. A linked name is not known when it asks."""
    fingerprint = nodes.NODE_CLASS_MAPPINGS["EntropyGuidanceLoadClassifier"].fingerprint_inputs
    before, file = fingerprint(classifier_name=name, prompts=""), folder / name
    assert before == fingerprint(classifier_name=name) and fingerprint(classifier_name=None) == []
    file = file / "config.json" if file.is_dir() else file
    os.utime(file, ns=(0, 0))
    try:
        assert fingerprint(classifier_name=name) != before
    finally:
        os.utime(file, ns=(file.stat().st_atime_ns, next(time for of, time, _ in before if of == file.name)))
    assert fingerprint(classifier_name=name) == before


def test_the_demo_classifier_names_colours(load):
    classifier = load("entropy-guidance-demo")
    assert set(classifier.labels) == set(COLOURS)
    from random import Random

    from demo.train_classifier import batch_of

    pictures, labels = batch_of(Random(5), 200)
    right = classifier.patcher.model(pictures).argmax(-1) == labels
    assert right.float().mean() > 0.9


def with_gradients() -> dict:
    return pack_module("nodes.classifiers.hugging_face").WITH_GRADIENTS


def test_hugging_face(load, folder):
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    classifier = load("animals")
    assert classifier.labels == ("cat", "dog", "fox, red fox")
    network = AutoModelForImageClassification.from_pretrained(folder / "animals").eval()
    process = AutoImageProcessor.from_pretrained(folder / "animals", **with_gradients())
    pixels = process(IMAGES, do_rescale=False, return_tensors="pt")
    assert_agree(classifier.patcher.model(IMAGES), network(**pixels).logits)


def test_zero_shot(load, folder):
    """Against transformers' own forward pass of the same images and prompts."""
    from transformers import AutoModelForZeroShotImageClassification, AutoProcessor

    prompts = ("a red circle", "a blue square", "a green triangle")
    classifier = load("zero-shot", prompts="\n".join(prompts))
    assert classifier.labels == prompts
    network = AutoModelForZeroShotImageClassification.from_pretrained(folder / "zero-shot").eval()
    inputs = AutoProcessor.from_pretrained(folder / "zero-shot", **with_gradients())(
        text=list(prompts), images=IMAGES, do_rescale=False, return_tensors="pt", padding="max_length", max_length=16
    )
    assert_agree(classifier.patcher.model(IMAGES), network(**inputs).logits_per_image)
    assert classifier.patcher.model.unread == ("network.text_model.", "network.text_projection.")


def test_a_zero_shot_folder_as_transformers_5_saves_it(load, folder):
    """The image processor stands in processor_config.json alone."""
    from transformers import AutoProcessor

    path, prompts = folder / "whole", "a red circle\na blue square"
    shutil.copytree(folder / "zero-shot", path, ignore=shutil.ignore_patterns("preprocessor_config.json"))
    try:
        AutoProcessor.from_pretrained(folder / "zero-shot", **with_gradients()).save_pretrained(path)
        found, expected = (load(name, prompts=prompts).patcher.model(IMAGES) for name in ("whole", "zero-shot"))
    finally:
        shutil.rmtree(path)
    assert torch.equal(found, expected)


def test_an_interrupt_ends_the_reading_of_prompts(load):
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        load("zero-shot", prompts="a red circle\na blue square")


def of_bytes_from_minus_one():
    return transformers.ViTImageProcessor(
        do_resize=False, rescale_factor=1 / 127.5, image_mean=[1.0] * 3, image_std=[1.0] * 3
    )


def of_bytes_as_they_are():
    return transformers.ViTImageProcessor(
        do_resize=False, do_rescale=False, image_mean=[127.5] * 3, image_std=[127.5] * 3
    )


def with_an_offset():
    return transformers.EfficientNetImageProcessor(
        do_resize=False, do_center_crop=False, rescale_factor=1 / 127.5, rescale_offset=True
    )


@pytest.mark.parametrize(
    "make", [of_bytes_from_minus_one, of_bytes_as_they_are, with_an_offset, transformers.ViTImageProcessor]
)
def test_an_image_processor_scales_bytes_in_its_own_way(make, tmp_path):
    """Against the library's own reading of the same picture as bytes."""
    make().save_pretrained(tmp_path)
    process = transformers.AutoImageProcessor.from_pretrained(tmp_path, **with_gradients())
    picture = torch.randint(256, (2, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    prepare = pack_module("nodes.classifiers.hugging_face").prepare
    expected = process(picture, return_tensors="pt")["pixel_values"]
    assert_agree(prepare(process, picture / 255)["pixel_values"], expected)


@pytest.mark.parametrize("name", ["resnet18-f37072fd.pth", "animals"])
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory: you tried to")])
def test_a_want_of_memory_is_no_damage(load, monkeypatch, name, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torch, "load", fail)
    monkeypatch.setattr(transformers.AutoModelForImageClassification, "from_pretrained", fail)
    with pytest.raises(ValueError, match="there is not enough free memory to load it: close other programs"):
        load(name)


@pytest.mark.parametrize("save", [save_align, save_siglip])
def test_a_zero_shot_family_of_another_kind(load, folder, save):
    """ALIGN, which has a temperature in the place of a scale, and SigLIP, whose logits have a bias; likewise against transformers'
    own forward pass."""
    from transformers import AutoImageProcessor, AutoModelForZeroShotImageClassification, AutoTokenizer

    prompts, path = ["a red circle", "a blue square", "a green triangle"], folder / "family"
    save(path)
    try:
        found = load("family", prompts="\n".join(prompts)).patcher.model(IMAGES)
        network = AutoModelForZeroShotImageClassification.from_pretrained(path).eval()
        process = AutoImageProcessor.from_pretrained(path, **with_gradients())
        tokens = AutoTokenizer.from_pretrained(path)(prompts, padding="max_length", max_length=16, return_tensors="pt")
    finally:
        shutil.rmtree(path)
    pixels = process(images=IMAGES, do_rescale=False, return_tensors="pt")
    assert_agree(found, network(**pixels, **tokens).logits_per_image)


def test_prompts_that_are_the_same_can_be_chosen(load, folder, node):
    """And are read as they were written, also when saved and loaded again."""
    classifier = load("zero-shot", prompts="a cat\na cat\na  dog")
    assert classifier.labels == ("a cat (0)", "a cat (1)", "a dog")
    assert node("EntropyGuidanceScore", classifier=classifier, labels="a cat (1)")[0].labels == (1,)
    texts = classifier.patcher.model.texts
    assert_agree(texts[:2], load("zero-shot", prompts="a cat\nno cat").patcher.model.texts[:1].expand(2, -1))
    classifier.patcher.model.save(folder / "again", classifier.labels, {})
    try:
        again = load("again")
        assert again.labels == classifier.labels and torch.equal(again.patcher.model.texts, texts)
    finally:
        shutil.rmtree(folder / "again")


def test_torchvision(load, folder):
    classifier = load("resnet18-f37072fd.pth")
    assert classifier.labels == tuple(ResNet18_Weights.DEFAULT.meta["categories"])
    network = get_model("resnet18").eval()
    network.load_state_dict(torch.load(folder / "resnet18-f37072fd.pth", weights_only=True))
    expected = network(ResNet18_Weights.DEFAULT.transforms()(IMAGES))
    assert_agree(classifier.patcher.model(IMAGES), expected)


def test_a_classifier_made_of_a_zero_shot_model(load, folder):
    """Fine-tuned CLIP and SigLIP carry the model type of the zero-shot model."""
    from transformers import SiglipConfig, SiglipForImageClassification, ViTImageProcessor

    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = SiglipConfig(vision_config={**tower, "image_size": 32, "patch_size": 8}, text_config=tower)
    config.id2label = {0: "cat", 1: "dog"}
    path = folder / "fine-tuned"
    SiglipForImageClassification(config).save_pretrained(path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)
    assert load("fine-tuned").labels == ("cat", "dog")
    shutil.rmtree(path)


def test_every_published_file_of_torchvision_is_recognised():
    import torchvision

    architecture = pack_module("nodes.classifiers.torchvision_networks").network_of
    for name in torchvision.models.list_models(module=torchvision.models):
        for entry in torchvision.models.get_model_weights(name):
            assert architecture(Path(entry.url).stem) == (name, entry)
        assert architecture(f"{name}-mine")[0] == name


def test_torchvision_with_classes_of_its_own(load):
    assert load("light.safetensors").labels == ("day", "night")
    assert load("mobilenet_v3_small.safetensors").labels == ("0", "1")


@pytest.mark.parametrize("name", ["entropy-guidance-demo", "animals", "resnet18-f37072fd.pth"])
def test_images_get_gradients_through_preprocessing(load, name):
    check_gradient(load(name).patcher.model)


def check_gradient(network):
    """Central differences along the gradient itself, and in directions at random, in which a part that is cut off is missed."""
    with torch.inference_mode(False), torch.enable_grad():
        images = IMAGES.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(network(images)[:, 1].sum(), images)
    direction = gradient / gradient.norm()
    high, low = (network(IMAGES + sign * 0.02 * direction)[:, 1].double().sum() for sign in (1, -1))
    torch.testing.assert_close((gradient * direction).sum().item(), (high - low).item() / 0.04, rtol=0.05, atol=1e-6)
    random, missed = torch.Generator().manual_seed(0), []
    for _ in range(8):
        signs = torch.randint(0, 2, IMAGES.shape, generator=random) * 2.0 - 1
        high, low = (network(IMAGES + sign * 1e-3 * signs)[:, 1].double().sum() for sign in (1, -1))
        missed.append(((gradient * signs).sum() - (high - low) / 2e-3).item())
    # Without one of three channels it would be 0.58 of the gradient's size.
    assert torch.tensor(missed).square().mean().sqrt() < 0.2 * gradient.norm()


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def truncated(folder):
    save_file({"a": torch.zeros(100)}, folder / "bad" / "resnet18.safetensors")
    path = folder / "bad" / "resnet18.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    return path


def a_pickle_that_runs_code(folder):
    path = folder / "bad" / "resnet18.pth"
    path.write_bytes(pickle.dumps(Malicious(folder / "executed")))
    return path


def of_another_network(folder):
    path = folder / "bad" / "resnet34.pth"
    torch.save(get_model("resnet18").state_dict(), path)
    return path


def of_no_known_network(folder):
    path = folder / "bad" / "mystery.pth"
    torch.save(get_model("resnet18").state_dict(), path)
    return path


def labels_that_do_not_match(folder):
    path = folder / "bad" / "mobilenet_v3_small.safetensors"
    save_file(load_file(folder / "light.safetensors"), path, {"labels": json.dumps(["day", "night", "dusk"])})
    return path


def without_a_processor(folder):
    path = folder / "bad" / "half"
    path.mkdir()
    (path / "config.json").write_text((folder / "animals" / "config.json").read_text())
    return path


def without_a_head(folder):
    path = folder / "bad" / "backbone"
    shutil.copytree(folder / "animals", path)
    weights = load_file(path / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "classifier" not in k}, path / "model.safetensors", {"format": "pt"})
    return path


def truncated_folder(folder):
    path = folder / "bad" / "animals"
    shutil.copytree(folder / "animals", path)
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-50])
    return path


def animals_with(change):
    """A writer of a copy of the animals' folder, changed by change(path)."""

    def make(folder):
        path = folder / "bad" / "animals"
        shutil.copytree(folder / "animals", path)
        change(path)
        return path

    return make


def pickled_alone(path):
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


def as_timm_publishes(path):
    (path / "preprocessor_config.json").unlink()
    (path / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": {"num_classes": 3}}))


def a_shard_of_a_process(path):
    shutil.copy(path / "model.safetensors", path / "shard-00000-model-00001-of-00001.safetensors")


def templates(path):
    (path / "additional_chat_templates").mkdir()


def a_large_vocabulary(path):
    (path / "bpe.codes").touch()
    os.truncate(path / "bpe.codes", 2**30)


def an_unprintable_label(folder):
    path = folder / "bad" / "mobilenet_v3_small.safetensors"
    save_file(load_file(folder / "light.safetensors"), path, {"labels": json.dumps(["day\ud800", "night"])})
    return path


def empty(folder):
    path = folder / "bad" / "resnet18.pth"
    path.touch()
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (without_a_head, "of its weights are missing, such as classifier"),
        (truncated_folder, "cannot be loaded from .*bad/animals: "),
        (empty, "cannot be loaded from .*bad/resnet18.pth: "),
        (truncated, "damaged"),
        (a_pickle_that_runs_code, "holds more than weights, which is not run"),
        (of_another_network, "does not fit resnet34: .* weights are missing"),
        (of_no_known_network, "'mystery' does not begin with the name of a torchvision classifier"),
        (labels_that_do_not_match, "the network has 2 classes, but its files name 3"),
        (without_a_processor, "has no preprocessor_config.json"),
        (animals_with(pickled_alone), "are a pickle .*save_pretrained, which writes safetensors"),
        (animals_with(as_timm_publishes), "is that of a timm model, which is not read.*such as google/vit"),
        (animals_with(a_shard_of_a_process), "shard-.* is what one process of a training has saved"),
        (animals_with(templates), "has additional_chat_templates"),
        (animals_with(a_large_vocabulary), "bpe.codes has 1,073,741,824 bytes; at most 67,108,864 are read"),
        (an_unprintable_label, r"'labels' in the metadata names class 0 'day\\ud800', with half a character"),
    ],
)
def test_bad_files_are_refused(load, folder, make, message):
    (folder / "bad").mkdir(exist_ok=True)
    path = make(folder)
    try:
        with pytest.raises(ValueError, match=f"classifier_name = '{path.relative_to(folder).as_posix()}'.*{message}"):
            load(path.relative_to(folder).as_posix())
    finally:
        shutil.rmtree(folder / "bad")
    assert not (folder / "executed").exists()


@pytest.mark.parametrize("name", ["../secrets", "/etc", "nothing.pth", "animals/config.json"])
def test_names_outside_of_the_list_are_refused(load, name):
    with pytest.raises(ValueError, match="is not in ComfyUI's model folder 'classifiers'"):
        load(name)


def test_prompts_are_for_zero_shot_models(load):
    with pytest.raises(ValueError, match="needs two prompts or more"):
        load("zero-shot", prompts="a red circle")
    for name in ("animals", "light.safetensors"):
        with pytest.raises(ValueError, match="Leave prompts empty"):
            load(name, prompts="a\nb")


def test_pipes_and_dangling_links_are_not_listed(folder):
    (folder / "bad").mkdir()
    try:
        os.mkfifo(folder / "bad" / "resnet18.pth")
        (folder / "bad" / "resnet18.safetensors").symlink_to(folder / "nothing")
        assert not [name for name in pack_module("nodes.classifiers.files").classifier_names() if "bad" in name]
    finally:
        shutil.rmtree(folder / "bad")


@pytest.fixture
def changed(folder):
    """changed(file, entries, of="animals") gives the name of a folder whose JSON file has other entries."""

    def change(file, entries, of="animals"):
        path = folder / "changed"
        shutil.copytree(folder / of, path)
        content = json.loads((path / file).read_text())
        (path / file).write_text(json.dumps(content | entries))
        return "changed"

    yield change
    shutil.rmtree(folder / "changed", ignore_errors=True)


@pytest.mark.parametrize(
    ("file", "entries", "message"),
    [
        ("config.json", {"num_labels": 10**9}, "config.json says num_labels = 1e.09; numbers up to 1,000,000"),
        ("config.json", {"id2label": dict.fromkeys(map(str, range(10**5)), "a")}, "id2label of 100,000 classes, and the weights are"),
        ("config.json", {"depths": [10**6, 1]}, "config.json says depths = 1e.06; numbers up to 1,000"),
        ("config.json", {"depths": [900, 1]}, "the network has far more layers than its files have weights"),
        ("config.json", {"hidden_sizes": [8, 0]}, r"is \(8, 8, 1, 1\), and its network would have \(0, 8, 1, 1\)"),
        ("config.json", {"hidden_sizes": [8, 800]}, r"is \(8, 8, 1, 1\), and its network would have \(800, 8, 1, 1\)"),
        ("config.json", {"quantization_config": {"quant_method": "gptq"}}, "quantized weights have no gradients"),
        ("config.json", {"_attn_implementation": "evil/kernel"}, "'evil/kernel', which is code"),
        ("config.json", {"model_type": "imagegpt"}, "'imagegpt' models cannot guide"),
        ("config.json", {"model_type": "dinat"}, "'dinat' models cannot guide: their attention is the package natten's"),
        ("config.json", {"model_type": "timm_wrapper", "model_args": {"checkpoint_path": "x"}}, "is that of a timm model"),
        ("config.json", {"depths": [600, 600]}, "depths = 2 numbers that add up to 1200; up to 1,000 in all can be built"),
        ("config.json", {"model_type": "levit", "image_size": 512, "patch_size": 1}, "at most 32 patches a side can be built"),
        ("config.json", {"configuration_files": ["config.4.0.0.json"]}, "configuration_files, which has another file read"),
        ("config.json", {"transformers_weights": "x.safetensors"}, "transformers_weights, which has other weights read"),
        ("config.json", {"fusion_config": {"patch_embeddings": True}}, "fusion_config, which has layers .* replaced"),
        ("config.json", {"image_processor_type": "OneFormerImageProcessor"}, "config.json says image_processor_type = 'OneFormer"),
        ("preprocessor_config.json", {"image_processor_type": "GotOcr2ImageProcessorFast"}, "is no image processor of an image classifier"),
        ("preprocessor_config.json", {"size": {"height": 20000, "width": 20000}}, "would take a tensor of .1, 3, 20000, 20000."),
        ("preprocessor_config.json", {"do_pad": True, "pad_size": {"height": 9999, "width": 9999}}, "would take a tensor"),
    ],
)  # fmt: skip
def test_folders_that_claim_too_much_are_refused(load, changed, file, entries, message):
    with pytest.raises(ValueError, match=message):
        load(changed(file, entries))


@pytest.mark.parametrize(
    "entries",
    [
        {"image_processor_type": "ViTImageProcessorFast"},
        {"image_processor_type": "ConvNextImageProcessor", "crop_pct": 0.875, "size": {"shortest_edge": 32}},
        {"image_processor_type": None, "feature_extractor_type": "ViTFeatureExtractor"},
        # HGNet-V2's, which is that of detectors.
        {"image_processor_type": "RTDetrImageProcessor", "size": {"height": 64, "width": 64}, "do_pad": False},
    ],
)
def test_image_processors_of_classifiers_are_read_by_all_their_names(load, changed, entries):
    assert load(changed("preprocessor_config.json", entries)).patcher.model(IMAGES).shape == (2, 3)


@pytest.mark.parametrize(("size", "kept"), [("large", True), ("\ud800", False)])
def test_what_caused_an_error_is_kept_where_it_can_be_printed(load, changed, size, kept):
    """ComfyUI logs the whole traceback, and its worker ends where that fails."""
    with pytest.raises(ValueError, match="describes no image processor") as caught:
        load(changed("preprocessor_config.json", {"size": size}))
    assert (caught.value.__cause__ is not None) == kept
    assert "".join(traceback.format_exception(caught.value)).encode()


def test_a_name_that_is_no_text_is_to_be_changed(load, folder):
    """No library opens such a file, and it is not damaged."""
    need_odd_names(folder)
    path = folder / os.fsdecode(b"mobilenet_v3_small-\xff.safetensors")
    shutil.copy(folder / "mobilenet_v3_small.safetensors", path)
    try:
        with pytest.raises(
            ValueError, match=r"= 'mobilenet_v3_small-\\udcff.safetensors' .* is no text \(UTF-8\): rename it"
        ):
            load(path.name)
    finally:
        path.unlink()


def write_with_a_hole(path, weights, key, shape):
    """A safetensors file of weights and one more, of zeros without a byte on disk."""
    good, size = save(weights), 4 * math.prod(shape)
    length = int.from_bytes(good[:8], "little")
    header, data = json.loads(good[8 : 8 + length]), good[8 + length :]
    header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + size]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    os.truncate(path, path.stat().st_size + size)


def test_classes_by_the_million_are_refused_before_they_have_memory(load, folder, monkeypatch):
    import torchvision

    built = []

    def on_which_device(name, **options):
        built.append(torch.empty(0).device.type)
        return get_model(name, **options)

    monkeypatch.setattr(torchvision.models, "get_model", on_which_device)
    weights = load_file(folder / "mobilenet_v3_small.safetensors")
    del weights["classifier.3.bias"]
    path = folder / "mobilenet_v3_small-wide.safetensors"
    write_with_a_hole(path, weights, "classifier.3.bias", [4_000_000])
    try:
        with pytest.raises(ValueError, match=r"'classifier.3.weight' is \(2, 1024\), .* have \(4000000, 1024\)"):
            load(path.name)
    finally:
        path.unlink()
    assert set(built) == {"meta"}


@pytest.fixture
def fetched(monkeypatch):
    """What is asked of a stub of the package kernels, which fetches code from a hub and runs it."""
    from transformers import modeling_utils
    from transformers.integrations import hub_kernels

    if not hasattr(modeling_utils, "is_kernels_available"):
        pytest.skip("this transformers knows of no such code")
    asked = []

    def get_kernel(name, *_args, **_options):
        asked.append(name)
        raise RuntimeError("nothing is fetched here")

    stub = ModuleType("kernels")
    stub.__spec__, stub.get_kernel = ModuleSpec("kernels", None), get_kernel
    monkeypatch.setitem(sys.modules, "kernels", stub)
    # By the names of transformers 5 and 4.
    for name, value in {"get_kernel_hub": get_kernel, "get_kernel": get_kernel, "_kernels_available": True}.items():
        monkeypatch.setattr(hub_kernels, name, value, raising=False)
    for module in (modeling_utils, hub_kernels):
        monkeypatch.setattr(module, "is_kernels_available", lambda: True, raising=False)
    return asked


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize("name", ["evil/kernel", "flash_attention_2"])
def test_no_kernel_is_fetched(load, changed, folder, fetched, key, name):
    """Whatever config.json asks for; transformers fetches it where it is asked to itself."""
    from transformers import AutoConfig, AutoModelForZeroShotImageClassification

    config = AutoConfig.from_pretrained(folder / "zero-shot")
    with pytest.raises((ImportError, ValueError)):
        AutoModelForZeroShotImageClassification.from_config(config, attn_implementation=name)
    assert fetched or (transformers.__version__ < "5" and "/" not in name)
    fetched.clear()
    file = changed("config.json", {key: name}, of="zero-shot")
    if "/" in name:
        with pytest.raises(ValueError, match="which is code to be fetched and is not run"):
            load(file, prompts="a circle\na square")
    else:
        assert load(file, prompts="a circle\na square").labels == ("a circle", "a square")
    assert fetched == []


def test_an_image_processor_without_gradients_is_named(load, monkeypatch):
    """Of many families transformers 4.50 has no other; today's is asked for one here."""
    monkeypatch.setattr(pack_module("nodes.classifiers.hugging_face"), "WITH_GRADIENTS", {"use_fast": False})
    with pytest.raises(ValueError, match=r"'animals' .*transformers [\d.]+ prepares .*no gradient\. Update"):
        load("animals")


def test_known_attention_of_config_json_is_the_librarys_choice(load, changed):
    assert load(changed("config.json", {"_attn_implementation": "flash_attention_2"})).labels[0] == "cat"


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ({0: None, 1: "", 2: " "}, ("0", "1", "2")),
        ({0: 7, 1: 0.5, 2: "fox"}, ("7", "0.5", "fox")),
        ({0: "cat", 1: "cat ", 2: "fox"}, ("cat (0)", "cat (1)", "fox")),
        ({0: "cat", 1: "cat", 2: "cat (1)"}, ("cat (0)", "cat (1) (1)", "cat (1)")),
        ({0: "2", 1: "fox\nred fox", 2: None}, ("2 (0)", "fox red fox", "2 (2)")),
        ({0: "cat", 5: "dog", 2: "fox"}, ("cat", "1", "fox")),
    ],
)
def test_labels_that_cannot_be_chosen_become_so(load, changed, caplog, names, labels, node):
    classifier = load(changed("config.json", {"id2label": names, "label2id": {}}))
    assert classifier.labels == labels
    assert "of 3 class names" in caplog.text and labels[1] in caplog.text
    for number, label in enumerate(labels):
        assert node("EntropyGuidanceScore", classifier=classifier, labels=label)[0].labels == (number,)


def test_labels_of_metadata_that_cannot_be_chosen_become_so(load, folder):
    weights = load_file(folder / "light.safetensors")
    save_file(weights, folder / "mobilenet_v3_small-x.safetensors", {"labels": json.dumps([None, 3])})
    try:
        assert load("mobilenet_v3_small-x.safetensors").labels == ("0", "3")
    finally:
        (folder / "mobilenet_v3_small-x.safetensors").unlink()


def test_prompts_are_as_long_as_the_text_encoder_reads(load, changed):
    """A tokenizer may claim any length, to which prompts are padded."""
    expected = load("zero-shot", prompts="a circle\na blue square").patcher.model.texts
    name = changed("tokenizer_config.json", {"model_max_length": 300_000_000}, of="zero-shot")
    assert torch.equal(load(name, prompts="a circle\na blue square").patcher.model.texts, expected)


def test_prompts_are_rehearsed_as_they_are_read(load, folder, monkeypatch):
    """With a mask, and no longer than any text encoder reads, whatever positions it says to have."""
    module = pack_module("nodes.classifiers.hugging_face")
    rehearsed, read = [], []

    def rehearse(call, *inputs, **named):
        rehearsed.append(named)
        return rehearse_as_before(call, *inputs, **named)

    def tokens(*arguments):
        read.append(tokens_as_before(*arguments))
        return read[-1]

    rehearse_as_before, tokens_as_before = module.rehearse, module._tokens
    monkeypatch.setattr(module, "rehearse", rehearse)
    monkeypatch.setattr(module, "_tokens", tokens)
    save_clip(folder / "long", positions=1000)
    try:
        load("long", prompts="a circle\na square")
    finally:
        shutil.rmtree(folder / "long")
    assert [tuple(named["attention_mask"].shape) for named in rehearsed if "attention_mask" in named] == [(64, 512)]
    assert {tuple(part.shape) for part in read[0].values()} == {(2, 512)} and "attention_mask" in read[0]


def test_no_tokenizer_advises_to_run_code(load, monkeypatch):
    """The library's words of one that comes as code, as AltCLIP's and TIPSv2's do."""
    import transformers
    from transformers.dynamic_module_utils import resolve_trust_remote_code

    def ask(folder, trust_remote_code, **_options):
        return resolve_trust_remote_code(trust_remote_code, str(folder), has_local_code=False, has_remote_code=True)

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", ask)
    with pytest.raises(
        ValueError, match="describe no tokenizer .*: it asks for code of its own, which is not"
    ) as caught:
        load("zero-shot", prompts="a circle\na square")
    assert "trust_remote_code" not in str(caught.value)


def test_a_tokenizer_names_no_file_of_this_computer(load, changed, folder):
    """It would read one to its end; directories are tokens, and where it was saved is a note."""
    entries = {"chat_template": "/", "name_or_path": str(folder / "light.safetensors")}
    file = changed("tokenizer_config.json", entries | {"vocab": str(folder / "light.safetensors")}, of="zero-shot")
    with pytest.raises(ValueError, match="tokenizer_config.json says vocab = '.*', a file of this computer"):
        load(file, prompts="a circle\na square")
    path = folder / file / "tokenizer_config.json"
    content = json.loads(path.read_text())
    del content["vocab"]
    path.write_text(json.dumps(content))
    assert load(file, prompts="a circle\na square").labels == ("a circle", "a square")


def test_many_prompts_are_read_in_parts(load):
    prompts = [f"a circle {number}" for number in range(130)]
    classifier = load("zero-shot", prompts="\n".join(prompts))
    few = load("zero-shot", prompts="\n".join(prompts[126:])).patcher.model.texts
    assert classifier.labels == tuple(prompts)
    assert_agree(classifier.patcher.model.texts[126:], few)


SIGLIP2 = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture
def naflex(folder):
    """SigLIP 2 with pictures in their own proportions, as 16 patches."""
    from transformers import Siglip2Config, Siglip2ForImageClassification, Siglip2ImageProcessor

    config = Siglip2Config(vision_config={**SIGLIP2, "patch_size": 8, "num_patches": 16}, text_config=SIGLIP2)
    config.id2label = {0: "cat", 1: "dog"}
    path = folder / "naflex"
    Siglip2ForImageClassification(config).save_pretrained(path)
    Siglip2ImageProcessor(patch_size=8, max_num_patches=16).save_pretrained(path)
    yield path
    shutil.rmtree(path)


def test_naflex(load, naflex):
    """Equal to the library's own, with a gradient that central differences agree with."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    network = load("naflex").patcher.model
    inputs = AutoImageProcessor.from_pretrained(naflex, **with_gradients())(
        IMAGES, do_rescale=False, return_tensors="pt"
    )
    assert not inputs["pixel_attention_mask"].all()  # pictures of 3 : 4 do not fill 16 patches
    assert_agree(network(IMAGES), AutoModelForImageClassification.from_pretrained(naflex).eval()(**inputs).logits)
    check_gradient(network)
