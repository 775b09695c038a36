"""Image classifiers in Hugging Face's format: config.json, preprocessor_config.json and safetensors in a folder."""

import json
from importlib.util import find_spec
from pathlib import Path

import torch

from .weights import NOTES

LOCAL = {"local_files_only": True, "trust_remote_code": False}
WEIGHTS = {"use_safetensors": True, "output_loading_info": True}
# An image processor made of tensor operations: transformers with several backends take it anyway, older ones have to be asked.
WITH_GRADIENTS = {} if find_spec("transformers.image_processing_backends") else {"use_fast": True}


def load(folder: Path, prompts: tuple[str, ...]) -> tuple[torch.nn.Module, list[str], dict]:
    """A module from images [B, 3, H, W] in 0..1 to logits, the class names, and how it was calibrated.

    A zero-shot model (CLIP, SigLIP) has a class for each prompt, any other one its own classes. Raises ValueError.
    """
    from transformers import AutoConfig, AutoImageProcessor
    from transformers.models.auto.modeling_auto import MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES

    for needed in ("preprocessor_config.json", "*.safetensors"):
        if not any(folder.glob(needed)):
            raise ValueError(f"the folder {folder} has no {needed}.")
    config = AutoConfig.from_pretrained(folder, **LOCAL)
    process = AutoImageProcessor.from_pretrained(folder, **WITH_GRADIENTS, **LOCAL)
    has_classes = any(name.endswith("ForImageClassification") for name in config.architectures or ())
    notes = _notes(config)
    if config.model_type in MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES and not has_classes:
        return *_zero_shot(folder, process, prompts or tuple(notes.get("labels", []))), notes
    if prompts:
        raise ValueError("prompts are for zero-shot models; this one has classes of its own. Leave prompts empty.")
    return *_classifier(folder, process), notes


def _notes(config) -> dict:
    """What a saved classifier's config.json says of its classes and training."""
    notes = getattr(config, NOTES, {})
    labels = notes.get("labels", []) if isinstance(notes, dict) else None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"'{NOTES}' in config.json is not an object with a list of labels.")
    return notes


def _network(auto, folder: Path) -> torch.nn.Module:
    """Raises ValueError where the files lack weights, which the library would make up."""
    network, info = auto.from_pretrained(folder, **WEIGHTS, **LOCAL)
    lacking = [*info["missing_keys"], *info["mismatched_keys"]]
    if lacking:
        raise ValueError(f"{len(lacking)} of its weights are missing or of another shape, such as {lacking[0]}.")
    return network.float()  # gradients of half-precision classifiers underflow


class _Classifier(torch.nn.Module):
    """network(pixel_values) after the image processor that belongs to it, which works on tensors with gradients."""

    suffix = ""  # a folder

    def __init__(self, network, process):
        super().__init__()
        self.network, self.process = network, process

    def save(self, path: Path, labels: tuple[str, ...], notes: dict) -> None:
        """Writes the folder that `load` reads."""
        for part in self._parts():
            part.save_pretrained(path)
        config = path / "config.json"
        content = json.loads(config.read_text(encoding="utf-8")) | {NOTES: {**notes, "labels": labels}}
        config.write_text(json.dumps(content, indent=2), encoding="utf-8")

    def _parts(self):
        return self.network, self.process

    def forward(self, images):
        pixels = self.process(images=images, do_rescale=False, return_tensors="pt", device=images.device)
        return self.logits(pixels["pixel_values"].to(self.network.dtype))

    def logits(self, pixels):
        return self.network(pixel_values=pixels).logits


def _classifier(folder: Path, process) -> tuple[torch.nn.Module, list[str]]:
    from transformers import AutoModelForImageClassification

    network = _network(AutoModelForImageClassification, folder)
    names = network.config.id2label
    return _Classifier(network, process), [names[i] for i in range(len(names))]


class _ZeroShotClassifier(_Classifier):
    """One class for each text, whose features are computed once."""

    def __init__(self, network, process, tokenizer, prompts: tuple[str, ...]):
        super().__init__(network, process)
        self.tokenizer = tokenizer
        tokens = tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt")
        with torch.no_grad():
            texts = network(**tokens, pixel_values=self._grey()).text_embeds
        self.register_buffer("texts", torch.nn.functional.normalize(texts, dim=-1))

    def _grey(self):
        return self.process(images=torch.full((1, 3, 64, 64), 0.5), do_rescale=False, return_tensors="pt")[
            "pixel_values"
        ]

    def _parts(self):
        return self.network, self.process, self.tokenizer

    def logits(self, pixels):
        features = self.network.get_image_features(pixel_values=pixels)
        features = getattr(features, "pooler_output", features)  # transformers 4 returns the tensor itself
        images = torch.nn.functional.normalize(features, dim=-1)
        logits = images @ self.texts.T * self.network.logit_scale.exp()
        return logits + getattr(self.network, "logit_bias", 0)


def _zero_shot(folder: Path, process, prompts: tuple[str, ...]) -> tuple[torch.nn.Module, list[str]]:
    from transformers import AutoModelForZeroShotImageClassification, AutoTokenizer

    if len(prompts) < 2:
        raise ValueError("a zero-shot model needs two prompts or more, one on each line: they are its classes.")
    network = _network(AutoModelForZeroShotImageClassification, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL)
    return _ZeroShotClassifier(network.eval(), process, tokenizer, prompts), list(prompts)
