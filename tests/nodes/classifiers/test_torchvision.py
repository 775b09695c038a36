"""Networks of torchvision: all are planned without memory, and small ones load as torchvision computes them, and again."""

import json
import re
from importlib.metadata import version

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torchvision.models import get_model, get_model_weights

from benchmarks import classifier_compatibility
from benchmarks.in_process import pack_module

NETWORKS = torchvision.models.list_models(module=torchvision.models)
SMALL = [
    ("mnasnet0_5", {}),
    ("regnet_y_400mf", {}),
    ("densenet121", {}),
    ("shufflenet_v2_x0_5", {}),
    ("squeezenet1_1", {}),
    ("googlenet", {"aux_logits": True}),
    ("googlenet", {"aux_logits": False}),
    ("inception_v3", {"aux_logits": True}),
    ("efficientnet_b0", {}),
    ("maxvit_t", {}),
]


def entries(name: str) -> list:
    """The newest published weights of a network, and those for pictures of other sizes."""
    by_size = {entry.meta["min_size"]: entry for entry in get_model_weights(name) if name.startswith("vit_")}
    default = get_model_weights(name).DEFAULT
    return [*({**by_size, default.meta["min_size"]: default}).values()]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_planned_without_memory(node, name):
    networks, loader = (pack_module(f"nodes.classifiers.{part}") for part in ("torchvision_networks", "torchvision"))
    for entry in entries(name):
        classes = len(entry.meta["categories"])
        with torch.inference_mode(False):
            with torch.device("meta"):
                weights = networks.build(name, entry, classes).state_dict()
            assert networks.entry_of_size(name, get_model_weights(name).DEFAULT, weights) is entry
            assert loader.count_classes(name, entry, weights) == classes
            planned = loader.planned(name, entry, classes, weights)
        assert all(weight.is_meta for weight in planned.parameters())
        if name != "inception_v3":  # whose published number counts the auxiliary head
            assert sum(weight.numel() for weight in planned.parameters()) == entry.meta["num_params"]


@pytest.mark.parametrize(("name", "options"), SMALL)
def test_small_networks_are_torchvisions_own_also_when_saved(node, name, options):
    """Their logits, from torchvision's files, and the gradient. DenseNet's layers have the names of published files there."""
    findings = classifier_compatibility.examine(f"torchvision/{name}", **options)
    assert findings.works, findings


@pytest.mark.parametrize("family", ["mobilenet_v2", "pp_lcnet"])  # the latter's outputs have no logits by that name
def test_a_folder_of_transformers_is_examined_likewise(node, family):
    findings = classifier_compatibility.examine(f"transformers/{family}")
    if version("transformers").startswith("4.") and findings.trouble.startswith("the library's own"):  # PP-LCNet's
        pytest.skip(findings.trouble)
    assert findings.works, findings


def test_the_page_keeps_the_rows_of_what_was_not_examined():
    works, refused = (
        classifier_compatibility.Findings(True, 0.0123, True),
        classifier_compatibility.Findings(trouble="it is"),
    )
    page = classifier_compatibility.page_with("", {"torchvision/vgg11": works, "torchvision/alexnet": works})
    again = classifier_compatibility.page_with(page, {"torchvision/vgg11": refused, "transformers/vit": works})
    assert again.splitlines()[-3:] == [
        "| torchvision | `alexnet` | yes | yes | 1.2% | yes |",
        "| torchvision | `vgg11` | **no**: it is | | | |",
        "| transformers | `vit` | yes | yes | 1.2% | yes |",
    ]
    assert classifier_compatibility.page_with(again, {}) == again
    everything = ["torchvision/vgg11", "torchvision/vgg13", "transformers/vit"]
    assert "\nNot examined yet: torchvision/vgg13.\n" in classifier_compatibility.page_with(again, {}, everything)


def test_the_page_has_a_row_for_every_network():
    page = classifier_compatibility.PAGE.read_text(encoding="utf-8")
    if f"transformers {version('transformers')} " not in page:
        pytest.skip("the page was made with another version of transformers, which may have other families")
    assert classifier_compatibility.page_with(page, {}, classifier_compatibility.names()) == page


def test_auxiliary_heads_of_other_classes_are_left_out(load, models):
    """As those have who change the last layer alone."""
    network = get_model("googlenet", weights=None, aux_logits=True, init_weights=False)
    network.fc = torch.nn.Linear(1024, 2)
    torch.save(network.state_dict(), models / "googlenet.pth")
    assert load("googlenet.pth").labels == ("0", "1")


def test_layers_of_vision_transformers_keep_their_old_names_in_safetensors(node):
    """linear_1 and linear_2, which torchvision renames where a file tells no version."""
    network = torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 16, num_classes=2)
    old = {
        re.sub(r"mlp\.([03])\.", lambda m: f"mlp.linear_{1 + int(m[1]) // 3}.", key): torch.full_like(weight, 0.5)
        for key, weight in network.state_dict().items()
    }
    assert "encoder.layers.encoder_layer_0.mlp.linear_2.weight" in old
    told = pack_module("nodes.classifiers.torchvision")._of_this_version(network, old)
    fit = network.load_state_dict(told, strict=False)
    assert not fit.missing_keys and not fit.unexpected_keys
    assert all((weight == 0.5).all() for weight in network.state_dict().values())


@pytest.mark.parametrize(
    ("name", "metadata", "message"),
    [
        ("efficientnet_lite0.pth", None, "torchvision has no 'efficientnet_lite0', only efficientnet_b0, .*rename the file"),
        ("resnet50_cats.pth", None, "torchvision has no 'resnet50_cats', only .*resnet50[.] If .*yours behind a dash, such as resnet"),
        ("mine.pth", None, "'mine' does not begin with .*: rename the file to name its architecture"),
        ("mine.safetensors", "efficientnet_lite0", "no 'efficientnet_lite0', only .*correct the entry 'architecture' of its metadata"),
        ("resnet18.safetensors", "mine", "'mine' does not begin with .*: correct the entry 'architecture' of its metadata"),
        ("resnet18.pth", None, "the weights are not those of resnet18: 'fc.bias' is missing or empty"),
    ],
)  # fmt: skip
def test_networks_that_torchvision_does_not_have_are_called_so(load, models, name, metadata, message):
    weights = {"weight": torch.zeros(2)}
    if metadata:
        save_file(weights, models / name, {"architecture": metadata})
    else:
        torch.save(weights, models / name)
    with pytest.raises(ValueError, match=message):
        load(name)


def test_weights_of_no_class_are_refused(load, models):
    weights = get_model("squeezenet1_1", num_classes=2).state_dict()
    for key in ("classifier.1.weight", "classifier.1.bias"):
        weights[key] = torch.zeros(0, *weights[key].shape[1:])
    save_file(weights, models / "squeezenet1_1.safetensors", {"labels": json.dumps([])})
    with pytest.raises(ValueError, match="'classifier.1.bias' is missing or empty"):
        load("squeezenet1_1.safetensors")
