"""Image classifiers in Hugging Face's format: config.json, preprocessor_config.json and safetensors in a folder."""

import copy
import json
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..common.progress import Progress
from ..common.want_of_memory import is_want_of_memory
from .claims import ANY, TooMuch, words_of
from .class_labels import distinct_labels
from .heads import names_of_logits
from .hugging_face_folder import LOCAL, Shapes, check_folder, check_tokenizer, numbers_of, read_config
from .rehearsal import check_fits, on_meta, prepared, rehearse
from .weights import NOTES, WANT_OF_MEMORY

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
    from transformers.utils import ModelOutput

WEIGHTS = {"use_safetensors": True, "output_loading_info": True}
# An image processor made of tensor operations: transformers with several backends take it anyway, older ones have to be asked.
WITH_GRADIENTS = {} if find_spec("transformers.image_processing_backends") else {"use_fast": True}
INPUTS = ("pixel_values", "pixel_attention_mask", "spatial_shapes")  # of images; SigLIP 2 NaFlex has all of them
EXAMPLE = torch.empty(1, 3, 64, 64, device="meta")
PROMPTS = 64  # encoded at once
MOST_PROMPTS = 10_000
MOST_PATCHES = 4096  # published SigLIP 2 have up to 1024
LONGEST_PROMPT = 512  # tokens: no text encoder of these families tells more apart


def load(folder: Path, prompts: tuple[str, ...]) -> tuple[torch.nn.Module, list[str], dict[str, Any]]:
    """A module from images [B, 3, H, W] in 0..1 to logits, the class names, and how it was calibrated.

    A zero-shot model (CLIP, SigLIP) has a class for each prompt, any other one its own classes. Raises ValueError.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES

    held = check_folder(folder)
    config = read_config(folder, held)
    process = _image_processor(folder)
    has_classes = any(name.endswith("ForImageClassification") for name in config.architectures or ())
    notes = _notes(config)
    if config.model_type in MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES and not has_classes:
        return *_zero_shot(folder, config, process, held, prompts or tuple(notes.get("labels", []))), notes
    if prompts:
        raise ValueError("prompts are for zero-shot models; this one has classes of its own. Leave prompts empty.")
    return *_classifier(folder, config, process, held), notes


def _image_processor(folder: Path) -> "BaseImageProcessor":
    """Raises ValueError where it cannot be made of its files, or where an older library has it without gradients."""
    from transformers import AutoImageProcessor, __version__

    try:
        process = AutoImageProcessor.from_pretrained(folder, **WITH_GRADIENTS, **LOCAL)
    except Exception as error:
        raise ValueError(f"preprocessor_config.json describes no image processor: {words_of(error)}") from error
    if WITH_GRADIENTS and not type(process).__name__.endswith("Fast"):
        raise ValueError(
            f"transformers {__version__} prepares pictures for it outside of PyTorch, where they have no gradient. Update "
            "transformers, or use another model, such as vit, convnext, clip or siglip."
        )
    return process


def _notes(config: "PretrainedConfig") -> dict[str, Any]:
    """What a saved classifier's config.json says of its classes and training."""
    notes = getattr(config, NOTES, {})
    labels = notes.get("labels", []) if isinstance(notes, dict) else None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"'{NOTES}' in config.json is not an object with a list of labels.")
    return notes


def _planned(auto: Any, config: "PretrainedConfig", held: Shapes) -> "PreTrainedModel":
    """The network on the meta device. Raises ValueError where it cannot be built, or is not that of the files' weights."""
    try:
        network = on_meta(lambda: auto.from_config(copy.deepcopy(config)), len(held))
    except TooMuch:
        raise
    except Exception as error:
        raise ValueError(
            f"config.json describes a {config.model_type} that cannot be built: {words_of(error)}"
        ) from error
    check_fits(network, held)
    return network


def _network(auto: Any, folder: Path, config: "PretrainedConfig") -> "PreTrainedModel":
    """Raises ValueError where the files lack weights, which the library would make up."""
    try:
        network, info = auto.from_pretrained(folder, config=config, **WEIGHTS, **LOCAL)
    except Exception as error:
        misfit = (
            f"its weights are not those of a {config.model_type} as config.json describes it: use the folder as it was "
            "published or saved."
        )
        raise ValueError(WANT_OF_MEMORY if is_want_of_memory(error) else misfit) from error
    if lacking := [*info["missing_keys"]]:  # weights of another shape are an error of the library's
        raise ValueError(f"{len(lacking)} of its weights are missing, such as {lacking[0]}.")
    return network.float()  # gradients of half-precision classifiers underflow


def prepare(process: "BaseImageProcessor", images: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a network reads of images [B, 3, H, W] in 0..1: pixel_values, and where in a picture each patch is (NaFlex).

    Raises ValueError for an image processor that gives something else."""
    given = {"images": images, "do_rescale": False} if _reads_ones(process) else {"images": 255 * images}
    parts = process(**given, return_tensors="pt", device=images.device)
    if "pixel_values" not in parts:
        raise ValueError(
            f"its image processor gives {', '.join(parts)} rather than pixels, so that it has no gradient."
        )
    return {name: parts[name].to(images.device) for name in INPUTS if name in parts}


def _reads_ones(process: "BaseImageProcessor") -> bool:
    """Whether its own scaling of bytes, which is left out then, only brings them to 0..1."""
    scaling = (("do_rescale", True), ("rescale_factor", 1 / 255), ("rescale_offset", False))
    return all(getattr(process, name, usual) == usual for name, usual in scaling)


def _prepared(process: "BaseImageProcessor") -> dict[str, torch.Tensor]:
    """What a network reads of a picture, on the meta device. Raises ValueError where that is huge, and for more patches than
    the attention of a network that decides by their numbers, and cannot be rehearsed, has memory for (NaFlex)."""
    inputs: dict[str, torch.Tensor] = prepared(partial(prepare, process), EXAMPLE)
    patches = inputs["pixel_attention_mask"].shape[-1] if "pixel_attention_mask" in inputs else 0
    if patches > MOST_PATCHES:
        raise TooMuch(
            f"its image processor cuts a picture into {patches:,} patches; at most {MOST_PATCHES:,} are read."
        )
    return inputs


class _Classifier(torch.nn.Module):
    """network(pixel_values) after the image processor that belongs to it, which works on tensors with gradients."""

    suffix = ""  # a folder
    network: "PreTrainedModel"
    process: "BaseImageProcessor"

    def __init__(self, network: "PreTrainedModel", process: "BaseImageProcessor") -> None:
        super().__init__()
        self.network, self.process = network, process

    def save(self, path: Path, labels: tuple[str, ...], notes: dict[str, Any]) -> None:
        """Writes the folder that `load` reads."""
        for part in self._parts():
            part.save_pretrained(path)
        config = path / "config.json"
        content = json.loads(config.read_text(encoding="utf-8")) | {NOTES: {**notes, "labels": labels}}
        config.write_text(json.dumps(content, indent=2), encoding="utf-8")

    def _parts(self) -> tuple[Any, ...]:
        return self.network, self.process

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        inputs = prepare(self.process, images)
        return self.logits({**inputs, "pixel_values": inputs["pixel_values"].to(self.network.dtype)})

    def logits(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return _logits_of(self.network(**inputs))


def _logits_of(outputs: "ModelOutput") -> torch.Tensor:
    """[B, N] of an image classifier's outputs: the library calls PP-LCNet's its last hidden state."""
    return outputs["logits" if "logits" in outputs else "last_hidden_state"]


def _classifier(
    folder: Path, config: "PretrainedConfig", process: "BaseImageProcessor", held: Shapes
) -> tuple[torch.nn.Module, list[str]]:
    from transformers import AutoModelForImageClassification

    planned = _planned(AutoModelForImageClassification, config, held)
    rehearse(planned, numbers_of(held), **_prepared(process))
    network = _network(AutoModelForImageClassification, folder, config)
    names = network.config.id2label
    labels = distinct_labels([names.get(number) for number in range(len(names))], f"{folder.name}/config.json")
    module = _Classifier(network, process)
    return module, names_of_logits(module, len(names), labels, network.config.problem_type)


class _ZeroShotClassifier(_Classifier):
    """One class for each text, whose features are computed once. unread: how the names of weights begin that pictures never
    meet, such as the text encoder's."""

    texts: torch.Tensor

    def __init__(
        self,
        network: "PreTrainedModel",
        process: "BaseImageProcessor",
        tokenizer: "PreTrainedTokenizerBase",
        prompts: tuple[str, ...],
    ) -> None:
        super().__init__(network, process)
        self.tokenizer, self.prompts = tokenizer, prompts
        grey = prepare(process, torch.full(EXAMPLE.shape, 0.5))
        parts, starts = [], range(0, len(prompts), PROMPTS)
        progress = Progress(len(starts))
        for first in starts:
            tokens = _tokens(tokenizer, prompts[first : first + PROMPTS], _positions(network.config))
            with torch.no_grad():
                parts.append(network(**tokens, **grey).text_embeds)
            progress()
        self.register_buffer("texts", torch.nn.functional.normalize(torch.cat(parts), dim=-1))
        self.unread = tuple(f"network.{name}." for name in _unread(network, lambda: self.logits(grey)))

    def save(self, path: Path, labels: tuple[str, ...], notes: dict[str, Any]) -> None:
        super().save(path, self.prompts, notes)  # as they were encoded; names of classes are made of them again

    def _parts(self) -> tuple[Any, ...]:
        return self.network, self.process, self.tokenizer

    def logits(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        features = self.network.get_image_features(**inputs)
        features = getattr(features, "pooler_output", features)  # transformers 4 returns the tensor itself
        images = torch.nn.functional.normalize(features, dim=-1)
        logits = images @ self.texts.T * _logit_scale(self.network)
        return logits + getattr(self.network, "logit_bias", 0)


def _unread(network: "PreTrainedModel", run: Callable[[], Any]) -> list[str]:
    """The names of a network's parts of which nothing runs."""
    ran: set[torch.nn.Module] = set()
    hooks = [module.register_forward_pre_hook(lambda module, _: ran.add(module)) for module in network.modules()]
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return [name for name, part in network.named_children() if ran.isdisjoint(part.modules())]


def _logit_scale(network: "PreTrainedModel") -> torch.Tensor:
    """What the cosine of a picture's and a text's features is multiplied by; ALIGN and TIPSv2 have its inverse."""
    if hasattr(network, "logit_scale"):
        return network.logit_scale.exp()
    return 1 / network.temperature


def _positions(config: "PretrainedConfig") -> int:
    """How many tokens its text encoder can tell apart, of which prompts take no more than LONGEST_PROMPT."""
    text = getattr(config, "text_config", config)
    return min(LONGEST_PROMPT, getattr(text, "max_position_embeddings", LONGEST_PROMPT))


def _tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Raises ValueError where it cannot be made of its files."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, **LOCAL)
    except Exception as error:  # damaged and hostile files let the library raise anything
        raise ValueError(f"its files describe no tokenizer for prompts: {words_of(error)}") from error


def _tokens(
    tokenizer: "PreTrainedTokenizerBase", prompts: tuple[str, ...], positions: int
) -> Mapping[str, torch.Tensor]:
    """What a text encoder of so many positions reads of prompts, [B, L] each. Raises ValueError where there is nothing."""
    try:
        longest = min(tokenizer.model_max_length, positions)
        return tokenizer([*prompts], padding="max_length", truncation=True, max_length=longest, return_tensors="pt")
    except Exception as error:  # a tokenizer is what its files make of it, and fails as they let it
        raise ValueError(f"its tokenizer cannot read the prompts: {words_of(error)}") from error


def _zero_shot(
    folder: Path, config: "PretrainedConfig", process: "BaseImageProcessor", held: Shapes, prompts: tuple[str, ...]
) -> tuple[torch.nn.Module, list[str]]:
    from transformers import AutoModelForZeroShotImageClassification

    if not 2 <= len(prompts) <= MOST_PROMPTS:
        raise ValueError(
            f"a zero-shot model needs two prompts or more, one on each line: they are its classes. There are {len(prompts):,}"
            f", and at most {MOST_PROMPTS:,} are read."
        )
    auto = AutoModelForZeroShotImageClassification
    planned = _planned(auto, config, held)
    check_tokenizer(folder)
    rehearse(planned.get_image_features, numbers_of(held), **_prepared(process))
    tokens = torch.empty(PROMPTS, _positions(config), dtype=torch.long, device="meta")
    rehearse(planned.get_text_features, ANY, tokens)  # without a gradient, for which nothing is kept
    # As prompts are read. Some families look at what the mask holds, which ends this rehearsal, and not the one before.
    rehearse(planned.get_text_features, ANY, tokens, attention_mask=torch.ones_like(tokens))
    network = _network(auto, folder, config)
    module = _ZeroShotClassifier(network.eval(), process, _tokenizer(folder), prompts)
    return module, distinct_labels(prompts, "prompts")
