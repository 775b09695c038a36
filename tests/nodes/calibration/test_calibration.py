"""Calibrating, measuring and saving classifiers of every format, from folders of pictures good and bad."""

import copy
import io
import json
import logging
import os
import re
import shutil
import struct
import zlib
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import pytest
import relplot
import torch
from odd_names import need_odd_names
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import multiclass_calibration_error

import nodes
from benchmarks import in_process
from benchmarks.tolerance import assert_agree

LABELS = ("cat", "dog", "fox")
COLOURS = dict(zip(LABELS, torch.eye(3)))
NAMES = {"hugging_face": "animals", "zero_shot": "clip", "torchvision": "animals.safetensors", "adm": "adm.safetensors"}
COLOUR_PIXELS = torch.eye(3)[:, :, None, None].expand(3, 3, 32, 32)  # as the classifier's own preprocessing has them
EIGHT_EACH = dict.fromkeys(LABELS, 8)
STEPS, BATCH = 3, 6
LEARNING_RATES = {"hugging_face": 2e-3, "zero_shot": 2e-3, "torchvision": 1e-4, "adm": 3e-4}


@pytest.fixture(scope="module")
def home(node, tmp_path_factory):
    """ComfyUI's folders of this module: input, output, temp, and models with a classifier of each kind."""
    root = tmp_path_factory.mktemp("home")
    kinds = ("input", "output", "temp")
    before = {kind: getattr(folder_paths, f"get_{kind}_directory")() for kind in kinds}
    for kind in kinds:
        (root / kind).mkdir()
        getattr(folder_paths, f"set_{kind}_directory")(str(root / kind))
    added = [str(root / "models"), str(root / "output" / "classifiers")]
    for path in added:
        folder_paths.add_model_folder_path("classifiers", path)
    (root / "models").mkdir()
    _save_models(root / "models")
    pictures(root / "input" / "animals")
    yield root
    for path in added:
        folder_paths.folder_names_and_paths["classifiers"][0].remove(path)
    for kind in kinds:
        getattr(folder_paths, f"set_{kind}_directory")(before[kind])


def _save_models(root: Path):
    from torchvision.models import MobileNet_V3_Small_Weights, get_model
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPTokenizer,
        ResNetConfig,
        ResNetForImageClassification,
        ViTImageProcessor,
    )

    from demo.architecture import TOKENIZER

    torch.manual_seed(0)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1], "layer_type": "basic"}
    ResNetForImageClassification(ResNetConfig(**sizes, id2label=dict(enumerate(LABELS)))).save_pretrained(
        root / "animals"
    )
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(root / "animals")

    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER, model_max_length=16)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    words = {"vocab_size": len(tokenizer), "max_position_embeddings": 16, "eos_token_id": tokenizer.eos_token_id}
    vision = {**tower, "image_size": 32, "patch_size": 8}
    clip = CLIPConfig(text_config={**tower, **words}, vision_config=vision, projection_dim=16)
    CLIPModel(clip).save_pretrained(root / "clip")
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(root / "clip")
    tokenizer.save_pretrained(root / "clip")

    network = get_model("mobilenet_v3_small", num_classes=3)
    for part in network.modules():
        part.momentum = None  # so that one pass gives batch normalization its statistics
    network(MobileNet_V3_Small_Weights.DEFAULT.transforms()(torch.rand(16, 3, 32, 32)))
    network = {key: weight.contiguous() for key, weight in network.state_dict().items()}
    metadata = {"labels": json.dumps(LABELS), "architecture": "mobilenet_v3_small"}
    save_file(network, root / "animals.safetensors", metadata)

    adm = in_process.pack_module("nodes.classifiers.adm")
    config = adm.AdmConfig(16, 4, 32, 1, (1, 1), (1,), classes=3, head_channels=32, schedule="flow")
    network = adm.AdmEncoder(config)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    save_file(network.state_dict(), root / "adm.safetensors", adm.metadata_of(config, LABELS))


def pictures(folder: Path, counts=EIGHT_EACH, mislabelled: float = 0.0):
    """Pictures of noise 32 × 32, each class in its colour; a share of them is in another class's folder."""
    generator = torch.Generator().manual_seed(0)
    for label, count in counts.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            wrong = torch.rand((), generator=generator) < mislabelled
            colour = COLOURS[LABELS[int(torch.randint(3, (), generator=generator))] if wrong else label]
            pixels = 0.4 * torch.rand(32, 32, 3, generator=generator) + 0.6 * colour
            Image.fromarray((255 * pixels).byte().numpy()).save(folder / label / f"{number:02}.png")


@pytest.fixture(scope="module")
def load(node, home):
    def load_classifier(name, **inputs):
        return node("EntropyGuidanceLoadClassifier", classifier_name=name, **inputs)[0]

    return load_classifier


@pytest.fixture(scope="module")
def fresh(load):
    """fresh(kind): a classifier as its files have it."""
    return lambda kind: load(NAMES[kind], **({"prompts": "\n".join(LABELS)} if kind == "zero_shot" else {}))


@pytest.fixture(scope="module")
def wired(demo, encode):
    """The demo model, for what is shown after a quarter of the sampling."""
    with torch.inference_mode():
        empty = encode(demo[1], "")
    return {"model": demo[0], "vae": demo[2], "conditioning": empty, "percents": "0.25", "resolution": 128}


@pytest.fixture(scope="module")
def calibrate(node, home):
    def run(classifier, image_folder="animals", **inputs):
        inputs = {"steps": STEPS, "batch_size": BATCH, "learning_rate": 2e-3, "resolution": 32, **inputs}
        return node("EntropyGuidanceCalibrate", classifier=classifier, image_folder=image_folder, **inputs)

    return run


@pytest.fixture(scope="module")
def report(node, home):
    def run(classifier, image_folder="animals", **inputs):
        inputs = {"resolution": 32, **inputs}
        return node("EntropyGuidanceCalibrationReport", classifier=classifier, image_folder=image_folder, **inputs)

    return run


@pytest.fixture(scope="module")
def trained(fresh, calibrate, wired):
    """trained(kind): a classifier, its weights before, and what calibrating it gave; done once."""

    @cache
    def train(kind):
        with torch.inference_mode():
            classifier = fresh(kind)
            before = weights(classifier)
            return (
                classifier,
                before,
                *calibrate(classifier, **(wired if kind == "adm" else {}), learning_rate=LEARNING_RATES[kind]),
            )

    return train


@pytest.fixture
def new_folder(home):
    """A folder of pictures that a test may fill: its path."""
    path = home / "input" / "mine"
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def nameless_folder(home):
    """The same, with a name whose bytes are no UTF-8."""
    need_odd_names(home)
    path = home / "input" / "\udcfe"
    path.mkdir()
    yield path
    shutil.rmtree(path)


def weights(classifier) -> dict:
    return copy.deepcopy(classifier.patcher.model.state_dict())


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def open_folder(name, classifier, size=32):
    return in_process.pack_module("nodes.calibration.image_folder").open_folder(name, classifier, size)


def read(files) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(Image.open(file))) for file in files]).movedim(-1, 1) / 255


def logits_of(classifier) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    if classifier.noise_aware:
        return classifier(torch.randn(4, 4, 16, 16, generator=generator), torch.tensor([0.1, 0.4, 0.7, 1.0]))
    return classifier(torch.rand(4, 3, 48, 40, generator=generator))


@pytest.mark.parametrize("kind", NAMES)
def test_calibrates_every_format(trained, kind):
    classifier, before, calibrated, picture = trained(kind)
    assert same(weights(classifier), before), "the classifier that goes in stays as it is"
    assert not logits_of(calibrated).equal(logits_of(classifier))
    assert calibrated.labels == classifier.labels and calibrated.noise_aware == classifier.noise_aware
    assert calibrated.notes["best_step"] > 0
    assert not any(w.requires_grad or w.grad is not None for w in calibrated.patcher.model.parameters())
    assert picture.ndim == 4 and picture.shape[0] == 1 and picture.shape[3] == 3 and min(picture.shape[1:3]) > 300
    assert 0 <= picture.min() < 0.2 and 0.9 < picture.max() <= 1


def test_the_seed_makes_the_classifier(trained, fresh, calibrate):
    again, other = (weights(calibrate(fresh("hugging_face"), seed=seed)[0]) for seed in (0, 1))
    first = weights(trained("hugging_face")[2])
    assert same(first, again) and not same(first, other)


@pytest.mark.parametrize("ece_form", ["per_sample", "per_bin"])
def test_an_overconfident_classifier_gets_better(fresh, calibrate, new_folder, ece_form):
    """Half of the pictures have a label by chance, and a classifier that knows their colours is sure of all."""
    pictures(new_folder, dict.fromkeys(LABELS, 24), mislabelled=0.5)
    classifier = fresh("hugging_face")
    with torch.inference_mode(False):
        network, random = classifier.patcher.model.network, torch.Generator().manual_seed(0)
        for part in network.modules():  # versions of the library begin with other weights
            if isinstance(part, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(part.weight, generator=random)
        head = network.classifier[-1]
        features = network(pixel_values=COLOUR_PIXELS, output_hidden_states=True).hidden_states[-1].mean((2, 3))
        head.weight.copy_(6 * torch.linalg.pinv(features - features.mean(0)).T)
        head.bias.copy_(-head.weight @ features.mean(0))
    calibrated, _ = calibrate(classifier, "mine", steps=20, batch_size=18, learning_rate=0.01, ece_form=ece_form)
    held_out = open_folder("mine", classifier).held_out
    labels, before, after = torch.tensor(held_out.labels), *(c(read(held_out.files)) for c in (classifier, calibrated))
    assert cross_entropy(after, labels) < cross_entropy(before, labels)
    errors = [multiclass_calibration_error(z.softmax(1), labels, 3, n_bins=15, norm="l1") for z in (before, after)]
    assert errors[0] > 0.2 and errors[1] < errors[0] - 0.05


@pytest.mark.parametrize(
    "inputs", [{"ece_weight": 0.0}, {"ece_beta": 0.5}, {"ece_form": "per_bin"}, {"entropy_weight": 0.5}], ids=str
)
def test_each_part_of_the_loss_is_trained_on(trained, fresh, calibrate, inputs):
    other, _ = calibrate(fresh("hugging_face"), **inputs)
    assert not same(weights(other), weights(trained("hugging_face")[2]))


class Interrupting:
    """Presses Interrupt at a report of progress, counts the reports that come after it, and keeps all previews."""

    def __init__(self, total, at):
        self.total, self.at, self.after, self.previews = total, at, None, []

    def __call__(self, value, total, preview, node_id=None):
        if preview:
            self.previews.append(preview)
        if self.after is not None:
            self.after += 1
        elif total == self.total and value >= self.at:
            comfy.model_management.interrupt_current_processing()
            self.after = 0


@pytest.mark.parametrize(("total", "at"), [(24, 1), (17, 5)], ids=["reading", "training"])
def test_interrupt(fresh, calibrate, total, at):
    classifier, hook, before_hook = fresh("hugging_face"), Interrupting(total, at), comfy.utils.PROGRESS_BAR_HOOK
    before = weights(classifier)
    comfy.utils.set_progress_bar_global_hook(hook)
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            calibrate(classifier, steps=17)
    finally:
        comfy.utils.set_progress_bar_global_hook(before_hook)
        comfy.model_management.interrupt_current_processing(False)
    assert hook.after == 0 and same(weights(classifier), before)
    assert len(hook.previews) == (at if total == 17 else 0), "the losses, after each step of a short training"
    assert all(kind == "JPEG" and picture.mode == "RGB" for kind, picture, _ in hook.previews)


def files_below(folder: Path) -> dict:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def save(node, home):
    """save(classifier, prefix): the name under which the loader then offers it."""
    names = in_process.pack_module("nodes.classifiers.files").classifier_names

    def save_classifier(classifier, prefix):
        before = set(names())
        node("EntropyGuidanceSaveClassifier", classifier=classifier, filename_prefix=prefix)
        (new,) = set(names()) - before
        return new

    return save_classifier


@pytest.mark.parametrize("kind", NAMES)
def test_saved_classifiers_load_again(trained, load, save, home, kind):
    calibrated = trained(kind)[2]
    name = save(calibrated, f"of mine/{kind}")
    loaded = load(name)  # a zero-shot model too without prompts
    assert loaded.labels == calibrated.labels == LABELS
    assert logits_of(loaded).equal(logits_of(calibrated))
    assert {key: value for key, value in loaded.notes.items() if key != "labels"} == calibrated.notes
    path = home / "output" / "classifiers" / name
    if path.is_dir():
        notes = json.loads((path / "config.json").read_text())["entropy_guidance"]
        assert notes.pop("labels") == list(LABELS)
    else:
        with safe_open(path, "pt") as file:
            notes = json.loads(file.metadata()["entropy_guidance"])
    assert notes.pop("best_step") in range(1, STEPS + 1)
    assert notes == {
        "steps": STEPS, "ece_weight": 1.0, "ece_beta": 0.001, "ece_form": "per_sample", "entropy_weight": 0.0, "seed": 0,
        "learning_rate": LEARNING_RATES[kind], "batch_size": BATCH, "image_folder": "animals",
        "resolution": 128 if kind == "adm" else 32, "percents": [0.25, 1.0] if kind == "adm" else [1.0],
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["hugging_face", "torchvision"])
def test_nothing_is_overwritten(fresh, save, kind):
    assert save(fresh(kind), "twice") != save(fresh(kind), "twice")


def test_a_zero_shot_model_that_is_loaded_again_takes_other_prompts(trained, load, save):
    name = save(trained("zero_shot")[2], "other prompts")
    assert load(name, prompts="horse\ncow").labels == ("horse", "cow")


@pytest.mark.parametrize("prefix", ["../evil", "a/../../evil", "/evil", "evil\0"])
def test_saving_outside_of_the_output_folder_is_refused(fresh, node, home, prefix):
    before = files_below(home)
    with pytest.raises(ValueError, match="write a name below ComfyUI's output folder"):
        node("EntropyGuidanceSaveClassifier", classifier=fresh("torchvision"), filename_prefix=prefix)
    assert files_below(home) == before and not list(Path("/").glob("evil*"))


def test_a_classifier_is_not_saved_into_another(fresh, save, node):
    name = save(fresh("hugging_face"), "outer")
    with pytest.raises(ValueError, match="not in another classifier's"):
        node("EntropyGuidanceSaveClassifier", classifier=fresh("torchvision"), filename_prefix=f"{name}/inner")


def test_a_configuration_above_the_folder_of_classifiers_is_no_classifier(fresh, save, home):
    """Such as that of a model that was downloaded into ComfyUI's own folder."""
    path = home / "output" / "config.json"
    path.write_text("{}")
    try:
        assert save(fresh("torchvision"), "beside")
    finally:
        path.unlink()


def test_weights_in_another_order_of_memory_can_be_saved(fresh, load, save, home):
    path = home / "models" / "channels_last.pt"
    file = load_file(home / "models" / NAMES["adm"])
    torch.save({key: w.to(memory_format=torch.channels_last) if w.ndim == 4 else w for key, w in file.items()}, path)
    path.rename(path := path.with_name("16x16_classifier.pt"))
    load = in_process.pack_module("nodes.classifiers.adm_file").load
    config = {"image_size": "16", "num_head_channels": "32", "noise_schedule": "flow"}
    module, *_ = load(torch.load(path, weights_only=True), config, path.stem)
    module.save(home / "output" / "contiguous.safetensors", LABELS, {})
    assert same(load_file(home / "output" / "contiguous.safetensors"), file)
    path.unlink()


@pytest.mark.parametrize("prefix", ["", "  ", "animals/", ".", "animals/..", "x" * 300, "\ud800", "a\nb"])
def test_a_prefix_that_is_no_name_is_refused(fresh, node, prefix):
    with pytest.raises(ValueError, match=re.escape(f"filename_prefix = {prefix.strip()!r}: write a name")):
        node("EntropyGuidanceSaveClassifier", classifier=fresh("torchvision"), filename_prefix=prefix)


def test_a_save_that_fails_half_way_leaves_nothing_behind(fresh, node, home):
    """Its weights are written before its notes, which cannot be."""
    classifier = replace(fresh("hugging_face"), notes={"unwritable": object()})
    before = files_below(home)
    with pytest.raises(TypeError, match="not JSON serializable"):
        node("EntropyGuidanceSaveClassifier", classifier=classifier, filename_prefix="failed")
    assert files_below(home) == before
    assert not [path for path in (home / "output").rglob("*") if path.name.startswith((".", "failed"))]


def numbers(logits, labels) -> tuple[float, float, float]:
    """ECE and smooth ECE as torchmetrics and relplot have them, and accuracy."""
    probabilities = logits.double().softmax(1)
    sure, answer = probabilities.max(1)
    right = (answer == labels).double()
    ece = multiclass_calibration_error(probabilities.float(), labels, 3, n_bins=15, norm="l1")
    return ece.item(), relplot.smECE(sure.numpy(), right.numpy()), right.mean().item()


@pytest.mark.parametrize("shown", ["held out", "all"])
def test_report_of_finished_pictures(fresh, report, home, shown):
    """Against the numbers of logits that are computed here."""
    classifier = fresh("hugging_face")
    picture, ece, smooth_ece, accuracy = report(classifier, pictures=shown)
    folder = home / "input" / "animals"
    files = sorted(folder.rglob("*.png")) if shown == "all" else open_folder("animals", classifier).held_out.files
    assert len(files) == (24 if shown == "all" else 6)
    labels = torch.tensor([LABELS.index(file.parent.name) for file in files])
    assert (ece, smooth_ece, accuracy) == pytest.approx(numbers(classifier(read(files)), labels), abs=1e-5)
    assert picture.shape[0] == 1 and picture.shape[3] == 3 and 0 <= picture.min() and picture.max() <= 1


def test_report_with_a_model(fresh, report, wired):
    """Two diagrams side by side, and the numbers are the means of both."""
    classifier = fresh("hugging_face")
    picture, *means = report(classifier, **wired)
    assert picture.shape[2] >= 2 * 400
    views = views_of(classifier, wired)
    of_each = torch.tensor([numbers(*answers(classifier, views, percent)) for percent in (0.25, 1.0)])
    assert not of_each[0].equal(of_each[1])
    assert means == pytest.approx(of_each.mean(0).tolist(), abs=1e-5)


def views_of(classifier, wired, decode="auto", seed="measured"):
    """What the nodes show a classifier of the held-out pictures."""
    view = in_process.pack_module("nodes.calibration.guidance_view").guidance_view(
        classifier, wired["model"], wired["conditioning"], wired["vae"], decode
    )
    example_views = in_process.pack_module("nodes.calibration.example_views").example_views
    held_out = open_folder("animals", classifier, wired["resolution"]).held_out
    return example_views(view, held_out, wired["percents"], torch.device("cpu"), seed)


@pytest.mark.parametrize(("decode", "side"), [("full", 40), ("half", 16)])
def test_finished_pictures_are_as_large_as_predictions(fresh, wired, decode, side):
    """Batches of a training hold both. Half of five places of a latent is two."""
    views = views_of(fresh("hugging_face"), {**wired, "resolution": 44}, decode)
    (pictures,), labels = views.batch(range(len(views)))
    assert pictures.shape == (len(views), 3, side, side) and len(labels) == len(views)


def answers(classifier, views, percent):
    ((inputs, labels),) = views.batches(percent, 16)
    return classifier(*inputs), labels


def noisy_latents(views, wired, numbers, seed):
    """x0 and (1 − σ)x0 + σn of a flow model, with noise of each view's own seed."""
    model, vae = wired["model"], wired["vae"]
    sigma = 0.75  # of the demo, after a quarter
    pixels = torch.stack([views.pictures[number][0] for number in numbers]).movedim(1, -1)
    x0 = model.model.process_latent_in(vae.encode(pixels))
    seeds = [int.from_bytes(sha256(f"{seed} {number}".encode()).digest()[:8], "big") for number in numbers]
    noise = [torch.randn(x0[:1].shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return sigma, (1 - sigma) * x0 + sigma * torch.cat(noise)


def test_shows_the_predictions_of_the_model(fresh, wired):
    """One call of the network itself, decoded by the VAE itself."""
    views, model = views_of(fresh("hugging_face"), wired, "full", seed=7), wired["model"]
    ((shown,), labels) = views.batch([1, 4])
    assert labels.tolist() == [views.pictures.labels[1], views.pictures.labels[4]]
    sigma, x = noisy_latents(views, wired, [1, 4], seed=7)
    comfy.model_management.load_models_gpu([model])
    ((embedding, more),) = wired["conditioning"]
    conds = model.model.extra_conds(cross_attn=embedding, noise=x, device=x.device, **more)
    conds = {key: cond.process_cond(batch_size=2, area=None).cond for key, cond in conds.items()}
    predicted = model.model.apply_model(x, torch.tensor([sigma, sigma]), **conds)
    expected = wired["vae"].decode(model.model.process_latent_out(predicted)).movedim(-1, 1)
    assert expected.std() > 0.05
    torch.testing.assert_close(shown.clamp(0, 1), expected, rtol=0, atol=3e-3)


def test_shows_noise_to_those_that_read_it(fresh, wired):
    views = views_of(fresh("adm"), wired, seed=7)
    ((shown, kept), _), ((clean, all_kept), _) = views.batch([0, 5]), views.batch([6, 11])
    sigma, x = noisy_latents(views, wired, [0, 5], seed=7)
    total = (1 - sigma) ** 2 + sigma**2
    torch.testing.assert_close(kept, torch.full((2,), (1 - sigma) ** 2 / total))
    torch.testing.assert_close(shown, x / total**0.5)
    pixels = torch.stack([views.pictures[i][0] for i in (0, 5)]).movedim(1, -1)
    assert_agree(clean, wired["model"].model.process_latent_in(wired["vae"].encode(pixels)))
    assert all_kept.tolist() == [1, 1]


def test_a_view_does_not_depend_on_its_batch(fresh, wired):
    """Nor on what was asked for before."""
    together = views_of(fresh("hugging_face"), wired).batch([0, 1, 2])[0][0]
    views = views_of(fresh("hugging_face"), wired)
    apart = torch.cat([views.batch([number])[0][0] for number in (2, 0, 1, 1)])
    torch.testing.assert_close(apart, together[[2, 0, 1, 1]], rtol=0, atol=2e-3)


@pytest.mark.parametrize(("batches_ahead", "freed"), [(0, 9), (2, 5), (1000, 2)])
def test_views_without_room_are_made_for_many_steps_together(fresh, monkeypatch, batches_ahead, freed):
    """And what made them is freed once for all of these, before anything is trained with them; the weights are the same."""
    fits, _ = fine_tuned(fresh, monkeypatch)
    module, events = fine_tuned(fresh, monkeypatch, training_room=4 * VIEW, ahead=batches_ahead * BATCH * VIEW)
    assert same(module.state_dict(), fits.state_dict())
    assert events.count("freed") == freed  # once before the first of the 8 steps
    assert "made freed looked" in " ".join(events) and "made looked" not in " ".join(events)


def test_held_out_views_without_room_leave_the_memory_to_training(fresh, monkeypatch):
    module, events = fine_tuned(fresh, monkeypatch, held_out_room=0)
    assert same(module.state_dict(), fine_tuned(fresh, monkeypatch)[0].state_dict())
    assert events.count("freed") == 1 + 9  # the checks before and after each step
    assert "made freed looked" in " ".join(events) and "made looked" not in " ".join(events)


VIEW = 4 * 3 * 32 * 32  # bytes


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (True, f"batch_size = {BATCH}: memory is too short to train"),
        (False, "Memory is too short to look at a single picture"),
    ],
)
def test_a_want_of_memory_says_what_to_change(fresh, calibrate, training, message):
    """As an error on which ComfyUI frees all models."""

    def short(module, inputs):
        if torch.is_grad_enabled() == training:
            raise RuntimeError("MPS backend out of memory")

    classifier = fresh("hugging_face")
    classifier.patcher.model.register_forward_pre_hook(short)
    with pytest.raises(torch.cuda.OutOfMemoryError, match=message):
        calibrate(classifier)


def short_above(classifier, pictures: int) -> list[int]:
    """A classifier for which memory runs out above so many pictures at once; how many it is shown."""
    shown = []

    def count(module, inputs):
        shown.append(len(inputs[0]))
        if len(inputs[0]) > pictures:
            raise RuntimeError("CUDA error: out of memory")

    classifier.patcher.model.register_forward_pre_hook(count)
    return shown


def test_fewer_pictures_are_measured_at_once_where_memory_runs_out(fresh, report):
    classifier = fresh("hugging_face")
    _, *numbers = report(classifier, pictures="all")
    shown = short_above(classifier, 4)
    assert report(classifier, pictures="all")[1:] == pytest.approx(numbers, abs=1e-5)  # float32's rounding
    assert shown == [16, 8, *[4] * 6]


def test_the_next_percent_begins_with_as_many_as_there_was_memory_for(fresh, report, wired):
    classifier = fresh("hugging_face")
    shown = short_above(classifier, 8)
    report(classifier, pictures="all", **{**wired, "percents": "0.25, 0.5"})
    assert shown == [16, *[8] * 9]  # the pictures themselves, and at two percents


def test_calibrating_needs_no_more_memory_than_its_batches(fresh, calibrate, trained):
    """So that a lower batch_size helps."""
    classifier = fresh("hugging_face")
    short_above(classifier, BATCH)
    assert same(weights(calibrate(classifier)[0]), weights(trained("hugging_face")[2]))


@pytest.fixture
def short_model(demo):
    """short_model(pictures): memory runs out in the demo model above so many at once; how many it is shown."""
    hooks = []

    def short(pictures):
        shown = []

        def count(module, inputs):
            shown.append(len(inputs[0]))
            if len(inputs[0]) > pictures:
                raise RuntimeError("CUDA error: out of memory")

        hooks.append(demo[0].model.diffusion_model.register_forward_pre_hook(count))
        return shown

    yield short
    for hook in hooks:
        hook.remove()


def test_a_model_shows_fewer_pictures_at_once_where_memory_runs_out(fresh, report, wired, short_model):
    _, *numbers = report(fresh("hugging_face"), pictures="all", **wired)
    shown = short_model(4)
    assert report(fresh("hugging_face"), pictures="all", **wired)[1:] == pytest.approx(numbers, abs=1e-4)  # float32's
    assert shown == [16, 8, *[4] * 6]


@pytest.mark.parametrize("room", [1.0, 0.0], ids=["kept", "made ahead"])
def test_calibrating_needs_no_more_memory_for_its_model_than_there_is(
    fresh, calibrate, wired, short_model, monkeypatch, room
):
    """Neither where views are kept nor where they are made ahead of some steps; what is trained stays the same."""
    monkeypatch.setattr(in_process.pack_module("nodes.calibration.example_views"), "MEMORY_SHARE", room)
    untrained = weights(fresh("hugging_face"))
    before = weights(calibrate(fresh("hugging_face"), **wired)[0])
    shown = short_model(4)
    after = weights(calibrate(fresh("hugging_face"), **wired)[0])
    assert max(shown) > 4
    # Of single weights Adam makes much of rounding.
    assert distance(after, before) < 0.1 * distance(before, untrained)


def distance(some, others) -> float:
    """Of weights from others."""
    return sum((some[name] - others[name]).double().square().sum().item() for name in some) ** 0.5


def test_a_model_without_memory_for_one_picture_says_what_to_change(fresh, calibrate, report, wired, short_model):
    short_model(0)
    words = "Memory is too short for what the model makes of a single picture.*decode = taesd"
    for run in (calibrate, report):
        with pytest.raises(torch.cuda.OutOfMemoryError, match=words):
            run(fresh("hugging_face"), **wired)


def fine_tuned(fresh, monkeypatch, training_room=None, held_out_room=None, ahead=None):
    """A module after 8 steps; and in order when views were "made", all memory "freed", and the classifier "looked". Rooms
    in bytes are of views that are kept."""
    image_folder, view, example_views, fine_tuning = (
        in_process.pack_module(f"nodes.calibration.{name}")
        for name in ("image_folder", "guidance_view", "example_views", "fine_tuning")
    )
    objective = in_process.pack_module("guidance_core.calibration_objective").CalibrationObjective(
        1.0, 0.001, "per_sample", 0
    )
    classifier, events = fresh("hugging_face"), []
    folder = image_folder.open_folder("animals", classifier, 32)

    class Seen(view.PictureView):
        def finished(self, pictures):
            events.append("made")
            return super().finished(pictures)

    examples, held_out = (
        example_views.example_views(Seen(), part, "", torch.device("cpu"))
        for part in (folder.training, folder.held_out)
    )
    for views, room in ((examples, training_room), (held_out, held_out_room)):
        views._room = views._room if room is None else room
        views._room_ahead = views._room_ahead if ahead is None else ahead
    assert len([*held_out.batches(1.0, 16)]) == 1  # as measuring does before
    free = comfy.model_management.free_memory

    def counted(memory, *args, **options):
        if memory == fine_tuning.ALL_MEMORY:
            events.append("freed")
        return free(memory, *args, **options)

    classifier.patcher.model.register_forward_pre_hook(lambda *_: events.append("looked"))
    with monkeypatch.context() as patched:
        patched.setattr(comfy.model_management, "free_memory", counted)
        training = fine_tuning.Training(objective, 8, 5e-4, BATCH, 0)
        module, _ = fine_tuning.fine_tune(classifier, training, examples, held_out)
    return module, events


@pytest.mark.parametrize("count", [1, 2, 5, 6, 11, 40])
def test_the_split(fresh, new_folder, count):
    """A fifth of each class, by the names of the files alone."""
    pictures(new_folder, {"cat": count, "dog": 7})
    folder = open_folder("mine", fresh("hugging_face"))
    training, held_out = set(folder.training.files), set(folder.held_out.files)
    assert not training & held_out and training | held_out == set(new_folder.rglob("*.png"))
    assert sum(file.parent.name == "cat" for file in held_out) == min(-(-count // 5), count - 1)
    assert sum(file.parent.name == "dog" for file in held_out) == 2
    for file in new_folder.rglob("*.png"):  # other pictures under the same names
        Image.new("RGB", (9, 9)).save(file)
    assert set(open_folder("mine", fresh("zero_shot")).held_out.files) == held_out


def test_classes_by_number_and_pictures_in_deeper_folders(fresh, new_folder):
    pictures(new_folder, {"cat": 2, "fox": 2})
    (new_folder / "cat").rename(new_folder / "CAT")
    (new_folder / "fox").rename(new_folder / "2")
    (new_folder / "2" / "more").mkdir()
    (new_folder / "2" / "01.png").rename(new_folder / "2" / "more" / "01.png")
    folder = open_folder("mine", fresh("hugging_face"))
    assert sorted(folder.everything.labels) == [0, 0, 2, 2]


def test_what_a_folder_holds_is_noticed(home, new_folder):
    """ComfyUI runs a node again where this changes."""
    names = ("EntropyGuidanceCalibrate", "EntropyGuidanceCalibrationReport")

    def fingerprints():
        return [nodes.NODE_CLASS_MAPPINGS[name].fingerprint_inputs(image_folder="mine") for name in names]

    pictures(new_folder)
    first = fingerprints()
    assert fingerprints() == first
    Image.new("RGB", (8, 8)).save(new_folder / "cat" / "new.png")
    assert all(now != before for now, before in zip(fingerprints(), first, strict=True))


def test_no_more_are_held_out_than_are_measured_in_a_while():
    held_out = in_process.pack_module("nodes.calibration.image_folder")._held_out
    files = [Path(name, f"{i}.png") for name in LABELS[:2] for i in range(2000)]
    assert len(held_out(files)) == 500


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "tif"])
def test_every_format_is_read_and_its_middle_square_kept(fresh, new_folder, ending):
    """White, between black sides."""
    pictures(new_folder)
    pixels = np.zeros((32, 96, 3), np.uint8)
    pixels[:, 24:72] = 255
    Image.fromarray(pixels).save(new_folder / "cat" / f"wide.{ending}")
    folder = open_folder("mine", fresh("hugging_face"))
    (number,) = [i for i, file in enumerate(folder.everything.files) if file.stem == "wide"]
    assert not folder.skipped and folder.everything[number][0].min() > 0.9


def test_photographs_are_turned_as_their_camera_was(fresh, new_folder):
    pictures(new_folder)
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = 255  # bright above, which orientation 6 has on the right
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels).save(new_folder / "cat" / "turned.jpg", exif=turned)
    folder = open_folder("mine", fresh("hugging_face"))
    (number,) = [i for i, file in enumerate(folder.everything.files) if file.stem == "turned"]
    picture = folder.everything[number][0]
    assert picture[:, :, 20:].min() > 0.8 and picture[:, :, :12].max() < 0.2


def test_files_have_torchvision_s_order(home, new_folder):
    """What a seed draws depends on it."""
    from torchvision.datasets import ImageFolder

    pictures(new_folder, {"dog": 2, "cat": 2})
    for name in (
        "cat/b/1.png",
        "cat/b-c/1.png",
        "cat/B/1.png",
        "cat/b/a/2.png",
        "Fox/1.png",
        "Fox/no picture",
        "none.png",
    ):
        (new_folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(new_folder / "cat" / "00.png", new_folder / name)
    far = home / "far"
    pictures(far, {"cat": 2})
    (new_folder / "linked").symlink_to(far / "cat")
    of_torchvision = ImageFolder(str(new_folder), is_valid_file=lambda path: True).samples
    listed = in_process.pack_module("nodes.calibration.files_below").files_below(new_folder).files
    assert [str(new_folder / file) for file in listed] == [path for path, _ in of_torchvision]
    shutil.rmtree(far)


def test_linked_folders_are_offered(fresh, home, new_folder):
    """A folder that is a link, and one whose classes are; neither is looked into further, where a link leads back."""
    far, root = home / "far", new_folder.parent
    pictures(far, {"cat": 2, "dog": 2})
    (far / "back").symlink_to(root)
    (root / "link").symlink_to(far)
    for name in ("cat", "dog"):
        (new_folder / name).symlink_to(far / name)
    names = in_process.pack_module("nodes.calibration.image_folder").folder_names()
    assert {"link", "mine"} <= {*names} and len(names) < 10
    assert len(open_folder("mine", fresh("hugging_face")).everything) == 4
    (root / "link").unlink()
    shutil.rmtree(far)


@pytest.mark.parametrize("name", ["Calibrate", "CalibrationReport", "DDPMSampler"])
def test_a_small_decoder_that_has_come_is_noticed(name, tmp_path):
    """Which decode = auto takes then."""
    node = nodes.NODE_CLASS_MAPPINGS[f"EntropyGuidance{name}"]
    before = node.fingerprint_inputs(image_folder="entropy-guidance-demo")
    (tmp_path / "taesd_decoder.safetensors").touch()
    folder_paths.add_model_folder_path("vae_approx", str(tmp_path))
    try:
        assert node.fingerprint_inputs(image_folder="entropy-guidance-demo") != before
        (tmp_path / "taesd_decoder.safetensors").rename(tmp_path / "another_model.safetensors")
        folder_paths.filename_list_cache.pop("vae_approx", None)
        assert node.fingerprint_inputs(image_folder="entropy-guidance-demo") == before
    finally:
        folder_paths.folder_names_and_paths["vae_approx"][0].remove(str(tmp_path))
        folder_paths.filename_list_cache.pop("vae_approx", None)


def test_a_full_disk_leaves_no_drawings(monkeypatch, tmp_path):
    example = in_process.pack_module("demo.example_folder")

    def full(folder):
        (folder / "some.png").touch()
        raise OSError("No space left on device")

    monkeypatch.setattr(example, "_draw", full)
    monkeypatch.setattr(folder_paths, "get_temp_directory", lambda: str(tmp_path))
    with pytest.raises(OSError, match="No space left"):
        example.example_folder()
    assert not [*tmp_path.iterdir()]


def test_links_in_circles_end(fresh, new_folder, caplog):
    """Two of them have a path for each series of ups and downs."""
    pictures(new_folder)
    for name in ("x", "y"):
        (new_folder / "cat" / name).symlink_to(new_folder / "cat")
    (new_folder / "loop").symlink_to(new_folder / "loop")
    in_process.pack_module("nodes.calibration.image_folder").fingerprint("mine")
    assert len(open_folder("mine", fresh("hugging_face")).everything) == 24
    assert (
        "image_folder 'mine': 2 links or hard links to files and folders that are listed in another place"
        in caplog.text
    )


def test_a_picture_has_one_class_and_is_in_one_set(fresh, home, new_folder):
    """Its own place counts, whatever links lead there, before it in the alphabet too; else the shortest way."""
    pictures(new_folder)
    for number in range(8):
        (new_folder / "dog" / f"a{number}.png").symlink_to(new_folder / "cat" / f"{number:02}.png")
    (new_folder / "cat" / "a.png").symlink_to(new_folder / "dog" / "00.png")
    (new_folder / "cat" / "all dogs").symlink_to(new_folder / "dog")
    os.link(new_folder / "cat" / "00.png", new_folder / "fox" / "hard.png")
    shutil.copy(new_folder / "cat" / "00.png", home / "elsewhere.png")
    (new_folder / "cat" / "deep").mkdir()
    for name in ("cat/deep/far.png", "fox/far.png"):
        (new_folder / name).symlink_to(home / "elsewhere.png")
    folder = open_folder("mine", fresh("hugging_face"))
    training, held_out = ([file.resolve() for file in part.files] for part in (folder.training, folder.held_out))
    assert len({*training, *held_out}) == len(training) + len(held_out) == 25
    own = {new_folder / label / f"{number:02}.png" for label in LABELS for number in range(8)}
    assert {*folder.everything.files} == {*own, new_folder / "fox" / "far.png"}
    assert all(
        file.parent.name == LABELS[label] for file, label in zip(folder.everything.files, folder.everything.labels)
    )
    (home / "elsewhere.png").unlink()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def claiming(width: int, height: int) -> bytes:
    """A PNG that says it is of this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def spoil(folder: Path):
    """Puts one picture of each bad kind into a class's folder."""
    whole = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(whole).save(folder / "half.png")
    (folder / "half.png").write_bytes((folder / "half.png").read_bytes()[:1500])
    (folder / "text.png").write_text("not a picture")
    (folder / "empty.jpg").touch()
    Image.new("RGBA", (32, 32)).save(folder / "clear.png")
    Image.new("L", (32, 32)).save(folder / "grey.png")
    Image.new("CMYK", (32, 32)).save(folder / "print.jpg")
    (folder / "large.png").write_bytes(claiming(10_000, 9_000))
    (folder / "bomb.png").write_bytes(claiming(60_000, 60_000))
    Image.fromarray(whole).save(folder / "turned.png", exif=b"XX no orientation")
    (folder / "program.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")


REASONS = {
    "half.png": "unreadable (", "text.png": "unreadable (", "empty.jpg": "unreadable (",
    "clear.png": "not RGB but RGBA; save it as an RGB picture", "grey.png": "not RGB but L", "print.jpg": "not RGB but CMYK",
    "large.png": "huge (10000 × 9000); at most", "bomb.png": "huge; at most", "turned.png": "unreadable (",
    "program.png": "unreadable (cannot identify",
}  # fmt: skip


def test_bad_pictures_are_skipped_and_named(fresh, new_folder, caplog):
    pictures(new_folder)
    spoil(new_folder / "dog")
    with caplog.at_level(logging.WARNING):
        folder = open_folder("mine", fresh("hugging_face"))
    assert len(folder.everything) == 24 and not {file.name for file in folder.everything.files} & REASONS.keys()
    (line,) = [record.getMessage() for record in caplog.records if "mine" in record.getMessage()]
    assert "image_folder 'mine': 10 of 34 pictures were skipped" in line
    for name, reason in REASONS.items():
        assert f"dog/{name}: {reason}" in line
    assert sorted(line.splitlines()[1:]) == sorted(folder.skipped)


def test_what_is_no_file_is_skipped_and_named(fresh, new_folder):
    """A pipe would be read for ever; a link to nothing has no size."""
    pictures(new_folder)
    os.mkfifo(new_folder / "dog" / "pipe.png")
    (new_folder / "dog" / "gone.png").symlink_to(new_folder / "nothing")
    in_process.pack_module("nodes.calibration.image_folder").fingerprint("mine")
    folder = open_folder("mine", fresh("hugging_face"))
    assert len(folder.everything) == 24
    assert [line.split(" but ")[0] for line in sorted(folder.skipped)] == [
        "dog/gone.png: no regular file", "dog/pipe.png: no regular file",
    ]  # fmt: skip


def test_a_video_behind_a_picture_is_not_counted_as_passes(fresh, new_folder):
    """Phones put one there; its bytes look like anything."""
    pictures(new_folder)
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "JPEG")
    (new_folder / "cat" / "moving.jpg").write_bytes(picture.getvalue() + 1000 * b"\xff\xda")
    folder = open_folder("mine", fresh("hugging_face"))
    assert len(folder.everything) == 25 and not folder.skipped


def test_odd_but_good_pictures(fresh, new_folder, report):
    """A thin one, whose middle square is small; a name that a formula or no text at all could be; hidden files."""
    need_odd_names(new_folder)
    pictures(new_folder)
    Image.new("RGB", (2, 40_000)).save(new_folder / "cat" / "thin.png")
    Image.new("RGB", (8, 8)).save(os.path.join(os.fsencode(new_folder / "cat"), b"\xff$x_$.png"))
    (new_folder / "cat" / "$bad_$.png").touch()
    (new_folder / ".thumbnails").mkdir()
    Image.new("RGB", (8, 8)).save(new_folder / ".thumbnails" / "small.png")
    folder = open_folder("mine", fresh("hugging_face"))
    assert len(folder.everything) == 26 and [line.split(":")[0] for line in folder.skipped] == ["cat/$bad_$.png"]
    assert all(folder.everything[i][0].shape == (3, 32, 32) for i in range(26))
    assert report(fresh("hugging_face"), "mine", pictures="all")[0].max() <= 1


def only_bad(folder):
    pictures(folder, {"cat": 0, "dog": 0})
    spoil(folder / "dog")


def one_class_is_bad(folder):
    pictures(folder, {"cat": 3, "dog": 0})
    spoil(folder / "dog")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: pictures(folder, {"cat": 0, "dog": 0}), "its sub-folders hold no pictures.*one sub-folder for each"),
        (lambda folder: pictures(folder, {"cat": 4}), "all its usable pictures are of one class, 'cat'"),
        (one_class_is_bad, "all its usable pictures are of one class, 'cat'"),
        (only_bad, "none of its 10 pictures can be used:\n(.*\n)*dog/text.png: unreadable"),
        (lambda folder: [pictures(folder), (folder / "cat").rename(folder / "horse"), (folder / "dog").rename(folder / "7")],
         "2 of 3 sub-folders are no classes of the classifier 'animals': 7, horse. .*'cat', 'dog', 'fox'"),
    ],
    ids=["no pictures", "one class", "one usable class", "all bad", "other classes"],
)  # fmt: skip
def test_folders_that_cannot_be_used(fresh, calibrate, report, new_folder, make, message):
    make(new_folder)
    for run in (calibrate, report):
        with pytest.raises(ValueError, match=f"image_folder = 'mine': {message}"):
            run(fresh("hugging_face"), "mine")


def rename_the_cats(folder):
    pictures(folder)
    (folder / "cat").rename(folder / "\udcff")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: pictures(folder, {"cat": 0, "dog": 0}), r"image_folder = '\udcfe': its sub-folders hold no"),
        (lambda folder: pictures(folder, {"cat": 4}), r"image_folder = '\udcfe': all its usable pictures are of one class"),
        (only_bad, r"image_folder = '\udcfe': none of its 10 pictures can be used"),
        (rename_the_cats, r"image_folder = '\udcfe': 1 of 3 sub-folders are no classes of the classifier 'animals': \udcff."),
        (pictures, r"batch_size = 999: the folder '\udcfe' has 18 pictures"),
    ],
    ids=["no pictures", "one class", "all bad", "other classes", "large batch"],
)  # fmt: skip
def test_names_that_are_no_text_are_written_out(fresh, calibrate, nameless_folder, caplog, make, message):
    """ComfyUI's log could not write them, and its worker would stop."""
    make(nameless_folder)
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        calibrate(fresh("hugging_face"), nameless_folder.name, batch_size=999)
    for text in (str(refused.value), *(record.getMessage() for record in caplog.records)):
        assert text.encode().decode() == text


@pytest.mark.parametrize("name", ["../input/animals", "..", "/etc", "nothing", "animals/cat", ""])
def test_folders_that_are_not_offered(fresh, calibrate, report, home, name):
    for run in (calibrate, report):
        with pytest.raises(ValueError, match=f"image_folder = '{name}': there is no such folder"):
            run(fresh("hugging_face"), name)


@pytest.mark.parametrize("counts", [{"cat": 1, "dog": 1}, {"cat": 4, "dog": 1}], ids=["none held out", "one held out"])
def test_too_few_pictures_to_hold_some_out(fresh, calibrate, report, new_folder, counts):
    """An error that says so, of the node and not of something inside it."""
    pictures(new_folder, counts)
    for run in (lambda *args: calibrate(*args, batch_size=1), report):
        with pytest.raises(ValueError, match="picture"):
            run(fresh("hugging_face"), "mine")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"steps": 0}, "steps = 0: it must be a whole number of 1 or more"),
        ({"steps": 2.5}, "steps = 2.5: it must be a whole number"),
        ({"batch_size": 0}, "batch_size = 0: it must be a whole number of 1 or more"),
        ({"batch_size": 8.5}, "batch_size = 8.5: it must be a whole number"),
        ({"batch_size": 19}, "batch_size = 19: the folder 'animals' has 18 pictures to train on .6 more are held out"),
        ({"learning_rate": float("nan")}, "learning_rate = nan: it must be"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0: it must be"),
        ({"seed": 2**64}, "seed = 18446744073709551616: it must be a whole number of 0 or more, and at most 18446744073709551615"),
        ({"resolution": 0}, "resolution = 0: it must be a whole number of 1 or more"),
        ({"resolution": 2**70}, "resolution = 1180591620717411303424: it must be"),
        ({"ece_weight": -1.0}, "ece_weight = -1.0: it must be a finite number of 0 or more"),
        ({"ece_beta": float("inf")}, "ece_beta = inf: it must be"),
        ({"entropy_weight": -0.5}, "entropy_weight = -0.5: it must be"),
        ({"ece_form": "per_class"}, "ece_form = 'per_class': it must be one of"),
    ],
)  # fmt: skip
def test_bad_values(fresh, calibrate, inputs, message):
    with pytest.raises(ValueError, match=message):
        calibrate(fresh("hugging_face"), **inputs)


def test_pictures_are_one_of_the_choices(fresh, report):
    with pytest.raises(ValueError, match="pictures = 'some': it must be one of held out, all"):
        report(fresh("hugging_face"), pictures="some")


def test_decode_is_one_of_the_choices_even_where_nothing_is_decoded(fresh, calibrate, report):
    for run in (calibrate, report):
        with pytest.raises(ValueError, match="decode = '': it must be one of auto, full, half, taesd"):
            run(fresh("hugging_face"), decode="")


@pytest.mark.parametrize("percents", ["1.5", "abc", "1", "-0.1", "0.5; 0.7", "nan"])
def test_percents_that_are_none(fresh, calibrate, report, wired, percents):
    for run in (calibrate, report):
        with pytest.raises(ValueError, match=f"percents = '{percents}': write shares of the sampling"):
            run(fresh("hugging_face"), **{**wired, "percents": percents})


@pytest.mark.parametrize(
    ("kind", "missing", "message"),
    [
        ("hugging_face", "conditioning", "conditioning: a model is wired, so it needs a prompt"),
        ("hugging_face", "vae", "vae: the model works in a latent space of 4 channels"),
        ("adm", "model", "model: the noise-aware classifier 'adm.safetensors' reads a model's noisy latents"),
        ("adm", "vae", "vae: the model works in a latent space of 4 channels"),
    ],
)
def test_what_is_not_wired(fresh, calibrate, report, wired, kind, missing, message):
    for run in (calibrate, report):
        with pytest.raises(ValueError, match=message):
            run(fresh(kind), **{key: value for key, value in wired.items() if key != missing})


def test_training_that_blows_up(fresh, calibrate, caplog):
    classifier = fresh("hugging_face")
    with caplog.at_level(logging.WARNING):
        calibrated, picture = calibrate(classifier, steps=100, learning_rate=1e6)
    message = (
        "Stopped after step 2 of 100: the loss of step 2 is not a finite number; kept are the weights as they came"
    )
    assert message in caplog.text
    assert same(weights(calibrated), weights(classifier)) and calibrated.notes["best_step"] == 0
    assert picture.isfinite().all()


def test_a_classifier_that_is_broken_from_the_start(fresh, calibrate, report):
    classifier = fresh("hugging_face")
    classifier.patcher.model.network.classifier[-1].bias[0] = float("nan")
    for run in (calibrate, report):
        with pytest.raises(ValueError, match="logits are not finite numbers"):
            run(classifier)


def test_every_picture_has_noise_of_its_own(fresh, wired):
    """Which depends on the artist's seed, up to the largest one, and is other than that of held-out pictures."""
    views = views_of(fresh("adm"), wired)
    clean = views.batch([6, 7])[0][0]
    noise = [views.batch([0, 1])[0][0] - clean]
    for seed in (0, 1, 0xFFFFFFFFFFFFFFFF):
        noise.append(views_of(fresh("adm"), wired, seed=f"training {seed}").batch([0, 1])[0][0] - clean)
    of_all = torch.cat(noise).flatten(1)
    assert (torch.corrcoef(of_all) - torch.eye(len(of_all))).abs().max() < 0.75  # the clean picture is part of each


def test_the_largest_seed(fresh, calibrate):
    assert calibrate(fresh("torchvision"), steps=1, seed=0xFFFFFFFFFFFFFFFF)


def test_the_demo_folder_fits_the_demo_classifier(load, home):
    """Drawn at its first use; what the demo classifier was trained on is like it."""
    classifier = load("entropy-guidance-demo")
    folder = open_folder("entropy-guidance-demo", classifier, 128)
    assert len(folder.everything) == 600 and not folder.skipped
    assert set(folder.everything.labels) == set(range(len(classifier.labels)))
    right = classifier(read(folder.held_out.files)).argmax(1) == torch.tensor(folder.held_out.labels)
    assert len(right) >= 120 and right.float().mean() > 0.9
