"""Which classifiers of torchvision and transformers can guide. `python -m benchmarks.classifier_compatibility` writes
docs/classifiers.md; with names behind it, such as torchvision/resnet18 and transformers/vit, it examines those alone.

Each is a network of the library's own sizes with random weights and three classes, which the library itself saves. The loader
reads it; its logits are held against the library's, its gradient against differences of its logits, and what the pack saves
of it against what it was.
"""

import argparse
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import folder_paths
import torch

from tools.environment import REPOSITORY

from .in_process import load_nodes, pack_module, run_node
from .tolerance import agree

PAGE = REPOSITORY / "docs" / "classifiers.md"
CLASSES = 3
IMAGES = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
IMAGES[1] *= torch.linspace(0, 1, 48)
# How far pictures are moved along the gradient, by the share of itself that a logit should change: small changes drown in
# rounding, large ones leave what is straight. Random networks with batch normalization are much bent.
SHARES = (0.001, 0.003, 0.01, 0.03, 0.1)
MOST = 0.05  # that a gradient may be away from differences
OF_PUBLISHED_WEIGHTS = {"transform_input": True, "init_weights": True}  # which Inception and GoogLeNet have
OPTIONS = {"googlenet": OF_PUBLISHED_WEIGHTS, "inception_v3": OF_PUBLISHED_WEIGHTS}
CONFIGURATIONS = {"perceiver": {"image_size": 224}}  # as published; without, it does not go with its image processor
# What the library's own default configuration and image processor may end in where they do not go together.
UNFIT = (ValueError, RuntimeError, TypeError, KeyError, ImportError, AttributeError)


@dataclass(frozen=True)
class Findings:
    """Whether logits agree with the library's, how far the gradient is from differences, as a share of it, and whether a
    saved copy's logits are equal. trouble: why it could not be tried.
    """

    agrees: bool = False
    gradient: float = math.inf
    again: bool = False
    trouble: str = ""

    @property
    def works(self) -> bool:
        return self.agrees and self.gradient <= MOST and self.again


def names() -> list[str]:
    """The networks of torchvision, and the families of transformers with image classifiers."""
    import torchvision
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

    networks = torchvision.models.list_models(module=torchvision.models)
    return [
        *(f"torchvision/{name}" for name in networks),
        *(f"transformers/{name}" for name in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES),
    ]


def examine(name: str, **options: Any) -> Findings:
    """options: further ones of a torchvision network, such as aux_logits."""
    library, _, network = name.partition("/")
    unsupported = pack_module("nodes.classifiers.hugging_face_folder").UNSUPPORTED
    if library == "transformers" and network in unsupported:
        return Findings(trouble=unsupported[network])
    with TemporaryDirectory() as path, listed(folder := Path(path)):
        try:
            file, expected = (torchvision_file if library == "torchvision" else folder_of)(network, folder, **options)
        except UNFIT as error:
            return Findings(trouble=f"the library's own defaults do not go together: {_line(error)}")
        try:
            module, labels = _load(file)
            logits = module(IMAGES)
            module.save(folder / f"again{module.suffix}", labels, {})
            again, _ = _load(f"again{module.suffix}")
        except ValueError as error:
            return Findings(trouble=_line(error).rpartition(f"{file}: ")[2])
        found = Findings(agree(logits, expected), gradient_error(module), torch.equal(again(IMAGES), logits))
        if math.isinf(found.gradient):
            return Findings(trouble="with these random weights its gradient is zero")
        return found


def _load(file: str) -> tuple[Any, tuple[str, ...]]:
    classifier = run_node("EntropyGuidanceLoadClassifier", classifier_name=file)[0]
    return classifier.patcher.model, classifier.labels


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).replace("|", "/")[:200]


@contextmanager
def listed(folder: Path) -> Iterator[None]:
    """Within, ComfyUI looks for classifiers in a folder, too."""
    roots = folder_paths.folder_names_and_paths["classifiers"][0]
    roots.append(str(folder))
    try:
        yield
    finally:
        roots.remove(str(folder))


def torchvision_file(name: str, folder: Path, **options: Any) -> tuple[str, torch.Tensor]:
    """The name of a state dict, as torchvision publishes it, and the logits of IMAGES."""
    from torchvision.models import get_model, get_model_weights

    entry = get_model_weights(name).DEFAULT
    sizes = {"image_size": entry.meta["min_size"][0]} if name.startswith("vit_") else {}
    torch.manual_seed(0)
    network = get_model(name, weights=None, num_classes=CLASSES, **{**OPTIONS.get(name, {}), **sizes, **options})
    pictures = entry.transforms()(IMAGES)
    learn(network, lambda: network(pictures))
    torch.save(as_published(network.state_dict()), folder / f"{name}.pth")
    return f"{name}.pth", network(pictures)


def as_published(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """With a DenseNet's layers as torchvision's files have them, which are older than its code: norm.1 for norm1."""
    old = {re.sub(r"(denselayer\d+\.(?:norm|relu|conv))([12]\.)", r"\1.\2", key): key for key in weights}
    if all(map(str.__eq__, old, old.values())):
        return weights
    return {name: weights[key] for name, key in old.items() if not key.endswith("num_batches_tracked")}


def folder_of(family: str, folder: Path) -> tuple[str, torch.Tensor]:
    """The name of a folder that transformers saves of a family's default configuration, and the logits of IMAGES."""
    import transformers
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

    others = pack_module("nodes.classifiers.hugging_face_folder").PROCESSOR_OF
    # By backend; transformers 4: a slow one and a fast one.
    kinds = IMAGE_PROCESSOR_MAPPING_NAMES[others.get(family, family)]
    kind = kinds["torchvision"] if isinstance(kinds, dict) else [name for name in kinds if name][-1]
    process = getattr(transformers, kind)()
    # Published folders name their class; where a family has several, the library needs it.
    classes = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES[family]
    name = classes if isinstance(classes, str) else classes[0]
    labels = {number: str(number) for number in range(CLASSES)}
    # PVT counts its classes beside naming them.
    options = {"id2label": labels, "num_labels": CLASSES, "architectures": [name], **CONFIGURATIONS.get(family, {})}
    config = transformers.CONFIG_MAPPING[family](**options)
    torch.manual_seed(0)
    network = transformers.AutoModelForImageClassification.from_config(config)
    inputs = process(images=IMAGES, do_rescale=False, return_tensors="pt")
    learn(network, lambda: network(**inputs))
    for part in (network, process):
        part.save_pretrained(folder / family)
    return family, network(**inputs)[0]  # logits, which PP-LCNet calls otherwise


def learn(network: torch.nn.Module, see: Callable[[], Any]) -> None:
    """Makes of new weights some that see pictures: batch normalization, without which deep networks see nothing, knows those
    that `see` shows and changes nothing else (EfficientNet's begins near 0), and layers of zeros are random."""
    for weight in network.parameters():
        if weight.ndim > 1 and not weight.any():
            torch.nn.init.normal_(weight, std=0.02)
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None  # one look is enough
            torch.nn.init.ones_(part.weight)
    network.train()
    see()
    network.eval()


def gradient_error(module: torch.nn.Module) -> float:
    """How far the size of a logit's gradient is from central differences along it, as a share; of SHARES the best."""
    with torch.inference_mode(False), torch.enable_grad():
        images = IMAGES.clone().requires_grad_()
        logits = module(images)[:, 1]
        (gradient,) = torch.autograd.grad(logits.sum(), images)
    size = gradient.norm().item()
    if not size:
        return math.inf
    direction, errors = gradient / size, []
    for share in SHARES:
        step = share * logits.abs().sum().item() / size
        high, low = (module(IMAGES + sign * step * direction)[:, 1].double().sum() for sign in (1, -1))
        errors.append(abs((high - low).item() / (2 * step) / size - 1))
    return min(errors)


HEAD = """# Which classifiers can guide

Written by `python -m benchmarks.classifier_compatibility`: the classification networks of {torchvision}, and the
families of {transformers} with an image-classification head in their default size, with random weights and three
classes, through Load Guidance Classifier. Zero-shot models with prompts (CLIP, SigLIP, ALIGN, BLIP and others) and noise-aware
classifiers are not in it: `clip`, `metaclip_2`, `siglip` and `siglip2` here are these with a classification head.

- *logits*: they agree with the library's own, to rounding.
- *gradient*: with respect to the picture, how far its size is from differences of a logit along it, which rounding and kinks
  explain up to 5 %.
- *saved*: written by Save Guidance Classifier's code and loaded again, the logits are equal to the bit.

| library | network | works | logits | gradient | saved |
|---|---|---|---|---|---|
"""


def head() -> str:
    """How the page begins, with the installed versions of both libraries."""
    versions = {library: version(library).partition("+")[0] for library in ("torchvision", "transformers")}
    return HEAD.format(**{library: f"{library} {number}" for library, number in versions.items()})


def row(name: str, findings: Findings) -> str:
    library, _, network = name.partition("/")
    if findings.trouble:
        return f"| {library} | `{network}` | **no**: {findings.trouble} | | | |"
    works, agrees, again = ("yes" if cell else "**no**" for cell in (findings.works, findings.agrees, findings.again))
    return f"| {library} | `{network}` | {works} | {agrees} | {findings.gradient:.1%} | {again} |"


def page_with(page: str, found: dict[str, Findings], everything: Sequence[str] = ()) -> str:
    """The page with rows for these names, in the place of those that it has for them, and which of all have none yet."""
    rows = {match[0]: line for line in page.splitlines() if (match := re.match(r"\| \w+ \| `[^`]+` \|", line))}
    for name, findings in found.items():
        line = row(name, findings)
        rows[re.match(r"\| \w+ \| `[^`]+` \|", line)[0]] = line
    left = [name for name in everything if "| {} | `{}` |".format(*name.split("/")) not in rows]
    not_yet = f"\nNot examined yet: {', '.join(left)}.\n" if left else ""
    return head() + "\n".join(rows[key] for key in sorted(rows)) + "\n" + not_yet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="such as torchvision/resnet18; all without one")
    chosen = parser.parse_args().names or names()
    load_nodes()
    for name in chosen:
        with torch.inference_mode():
            findings = examine(name)
        print(row(name, findings), flush=True)
        page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
        PAGE.write_text(page_with(page, {name: findings}, names()), encoding="utf-8")


if __name__ == "__main__":
    main()
