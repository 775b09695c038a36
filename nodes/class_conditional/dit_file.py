"""Checkpoints of DiT and SiT, as published and as their training saves them: the shape is told from the weights.

What weights cannot say follows from the published shapes (how heads are cut) and the file's name (DiT or SiT, whose
weights look the same), or from a safetensors file's metadata: num_heads, prediction (eps or flow), labels (a JSON list).
"""

import re
from math import isqrt

import comfy.latent_formats
from comfy.model_base import ModelType
from torch import Tensor

from ..classifiers.rehearsal import on_meta
from ..classifiers.weights import check_weights, count_in_metadata, weight_shape
from .class_model import LINEAR, ClassModelSettings
from .dit import DiT, DitShape
from .files import names_of_rows

PARTS = {
    "x_embedder.proj.weight",
    "pos_embed",
    "y_embedder.embedding_table.weight",
    "blocks.0.adaLN_modulation.1.weight",
}
HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}  # of a width: S, B, L and XL
OF_THE_NAME = re.compile(r"(?<![a-z])[ds]it(?![a-z])", re.IGNORECASE)
FLOW = {"shift": 1.0, "multiplier": 1.0}  # ComfyUI's timestep is σ itself
PREDICTIONS = {"dit": "eps", "sit": "flow"}
CHANNELS = 4  # of the latents of Stable Diffusion's VAE
MEMORY = 0.5 * 2**2 / 1152  # of a feature of a token, where XL/2 needs what ComfyUI says of PixArt, which is as large


def read(
    weights: dict[str, Tensor], metadata: dict[str, str], stem: str
) -> tuple[ClassModelSettings, dict[str, Tensor]]:
    """What a checkpoint is, and its weights. stem: the file's name. Raises ValueError for one of another network, and
    for one of which it is not said whether it is a DiT or a SiT."""
    if not {*weights} >= PARTS:
        raise ValueError(
            "these are not the weights of a DiT or SiT in their authors' layout, such as DiT-XL-2-256x256.pt or "
            "SiT-XL-2-256.pt. ComfyUI's own Load Diffusion Model reads other networks, Load ADM those of guided-diffusion."
        )
    shape = _shape(weights, metadata, stem)
    # No memory for weights that are not the file's.
    expected = on_meta(lambda: DiT(shape), len(weights)).state_dict()
    check_weights(expected, weights, "the model's")
    return settings_of(shape, names_of_rows(metadata, shape.classes, null=True)), weights


def settings_of(shape: DitShape, class_names: tuple[str, ...]) -> ClassModelSettings:
    """What ComfyUI is to know of such a network."""
    prediction, sampling = (ModelType.FLOW, FLOW) if shape.flow else (ModelType.EPS, LINEAR)
    memory = MEMORY * shape.width / shape.patch**2
    return ClassModelSettings(DiT, shape, comfy.latent_formats.SD15(), prediction, sampling, class_names, memory)


def _shape(weights: dict[str, Tensor], metadata: dict[str, str], stem: str) -> DitShape:
    width, channels, patch, _ = weight_shape(weights, "x_embedder.proj.weight", 4)
    if channels != CHANNELS:
        raise ValueError(f"it reads latents of {channels} channels; those of Stable Diffusion's VAE have {CHANNELS}.")
    outputs = weight_shape(weights, "final_layer.linear.weight", 2)[0]
    return DitShape(
        width=width,
        depth=len({key.split(".")[1] for key in weights if key.startswith("blocks.")}),
        heads=_heads(metadata, width),
        patch=patch,
        side=isqrt(weight_shape(weights, "pos_embed", 3)[1]),
        classes=weight_shape(weights, "y_embedder.embedding_table.weight", 2)[0],
        channels=channels,
        two_outputs=outputs == 2 * channels * patch**2,
        flow=_prediction(metadata, stem) == "flow",
    )


def _heads(metadata: dict[str, str], width: int) -> int:
    if "num_heads" not in metadata and width not in HEADS:
        raise ValueError(
            f"its width of {width} is none of the published {', '.join(map(str, HEADS))}, which say how many heads it has: "
            "save it as safetensors with 'num_heads' in the metadata."
        )
    return count_in_metadata(metadata, "num_heads", str(HEADS.get(width)))


def _prediction(metadata: dict[str, str], stem: str) -> str:
    """What the network predicts: eps or flow."""
    named = {PREDICTIONS[kind.lower()] for kind in OF_THE_NAME.findall(stem)}
    if "prediction" not in metadata and len(named) != 1:
        raise ValueError(
            f"'{stem}' does not say whether this is a DiT or a SiT, whose weights look the same: rename the file, such as "
            f"DiT-{stem} or SiT-{stem}, or save it as safetensors with 'prediction' (eps or flow) in the metadata."
        )
    prediction = metadata["prediction"] if "prediction" in metadata else named.pop()
    if prediction not in PREDICTIONS.values():
        raise ValueError(f"prediction = '{prediction}' is unknown: use eps (DiT) or flow (SiT).")
    return prediction
