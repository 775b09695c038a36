"""Classifiers whose last layer is not one logit for each of several classes, and those whose gradient is zero."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model

from benchmarks.in_process import pack_module
from benchmarks.tolerance import assert_agree

NETWORK = "shufflenet_v2_x0_5"
IMAGES = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))


def save_network(folder, labels=None, classes=1, change=lambda weights: None):
    """A small torchvision network of random weights; change(weights) may change them."""
    torch.manual_seed(0)
    weights = get_model(NETWORK, num_classes=classes).state_dict()
    change(weights)
    save_file(weights, folder / f"{NETWORK}.safetensors", {} if labels is None else {"labels": json.dumps(labels)})


def save_folder(path, names, **config):
    """A small Hugging Face classifier."""
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1], "layer_type": "basic"}
    ResNetForImageClassification(ResNetConfig(**sizes, id2label=names, **config)).save_pretrained(path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)


def check_sigmoid(classifier, own_logits):
    """The second class has the probability that a sigmoid gives the network's one logit."""
    logits = classifier.patcher.model(IMAGES)
    assert logits.shape == (2, 2) and own_logits.shape == (2, 1) and own_logits.abs().min() > 0
    assert_agree(logits.softmax(-1)[:, 1:], own_logits.sigmoid())
    assert torch.equal(classifier.trainable_copy()(IMAGES), logits)


@pytest.mark.parametrize(
    ("labels", "names"),
    [(None, ("not 0", "0")), (["cat"], ("not cat", "cat")), (["dog", "cat"], ("dog", "cat"))],
)
def test_one_logit_of_a_state_dict_is_two_classes(load, models, labels, names):
    save_network(models, labels)
    classifier = load(f"{NETWORK}.safetensors")
    assert classifier.labels == names
    transforms, network = classifier.patcher.model
    check_sigmoid(classifier, network(transforms(IMAGES)))
    classifier.patcher.model.save(models / "again.safetensors", classifier.labels, {})
    again = load("again.safetensors")
    assert again.labels == names
    assert torch.equal(again.patcher.model(IMAGES), classifier.patcher.model(IMAGES))


def test_one_logit_of_a_folder_is_two_classes(load, models):
    save_folder(models / "cats", {0: "cat"})
    classifier = load("cats")
    assert classifier.labels == ("not cat", "cat")
    prepare = pack_module("nodes.classifiers.hugging_face").prepare
    module = classifier.patcher.model
    check_sigmoid(classifier, module.network(**prepare(module.process, IMAGES)).logits)
    module.save(models / "again", classifier.labels, {})
    again = load("again")
    assert again.labels == classifier.labels and torch.equal(again.patcher.model(IMAGES), module(IMAGES))


@pytest.mark.parametrize(
    ("names", "problem", "message"),
    [
        ({0: "cat", 1: "dog"}, "multi_label_classification", "may have several of its classes at once"),
        ({0: "beauty"}, "regression", "it tells a number rather than a class"),
    ],
)
def test_heads_without_a_softmax_are_refused(load, models, names, problem, message):
    save_folder(models / "other", names, problem_type=problem)
    with pytest.raises(ValueError, match=f"classifier_name = 'other' .*its problem_type is {problem}: .*{message}"):
        load("other")


def test_labels_of_another_number_than_one_logit_are_refused(load, models):
    save_network(models, ["cat", "dog", "fox"])
    with pytest.raises(ValueError, match="the network has 2 classes, but its files name 3"):
        load(f"{NETWORK}.safetensors")


def test_a_noise_aware_classifier_of_one_class_is_refused(load, models):
    adm = pack_module("nodes.classifiers.adm")
    config = adm.AdmConfig(16, 3, 32, 1, (1, 1), (1,), classes=1, head_channels=32)
    save_file(adm.AdmEncoder(config).state_dict(), models / "one.safetensors", adm.metadata_of(config, ["cat"]))
    with pytest.raises(ValueError, match="it has 1 class: guidance needs two or more"):
        load("one.safetensors")


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_a_gradient_of_zero_or_of_no_number_is_said_once(load, models, caplog, value):
    def blind(weights):
        weights["fc.weight"].fill_(value)

    save_network(models, classes=3)
    load(f"{NETWORK}.safetensors")
    assert "gradient is zero" not in caplog.text
    save_network(models, classes=3, change=blind)
    load(f"{NETWORK}.safetensors")
    assert caplog.text.count(f"'{NETWORK}.safetensors' will not guide: its gradient is zero") == 1
