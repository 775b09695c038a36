"""One input at a time: what each input of ERG, ERG Text Encoder, ERG Guider and CADS does around its default, and τc at several scales."""

from dataclasses import replace

from ..in_process import defaults_of
from ..text_to_image.drawing import SAME, Setting
from ..text_to_image.methods import ENCODER_LAYERS, LAYERS

SCALES = (1.5, 2.0, 3.0)
ENCODER_TEMPERATURES = (0.0, 0.01, 0.03, 0.1, 0.3, 0.5, 0.8, 1.5, 3.0)
AROUND = {  # around what, which input of which node, and its values
    "ERG": (
        Setting(1.5, SAME, erg={"temperature": 0.3, "layers": "40%-50%"}),
        "erg",
        {
            "temperature": (0.0, 0.1, 0.3, 0.6, 0.9),
            "flatness": (0.1, 0.2, 0.4, 0.8),
            "layers": LAYERS[1:],  # the first is the second in a network of twelve
            "start_percent": (0.0, 0.2, 0.4, 0.6),
            "end_percent": (0.4, 0.6, 0.8, 1.0),
            "alpha": (0.5, 0.8, 1.0, 1.2),
            "step_size": (0.5, 1.0, 1.5, 2.0),
            "iterations": (1, 2, 3),
        },
    ),
    "ERG in a window": (
        Setting(1.5, erg={"temperature": 0.3, "layers": "40%-50%", "start_percent": 0.2, "end_percent": 0.8}),
        "erg",
        {"outside": ("ordinary", "no guidance")},
    ),
    "ERG of its own": (
        Setting(1.0, erg={"temperature": 0.3, "layers": "40%-50%", "scale": 0.5}),
        "erg",
        {"scale": (0.25, 0.5, 1.0, 2.0), "rescale": (0.0, 0.5, 1.0)},
    ),
    "ERG Text Encoder": (
        Setting(1.5, SAME, clip={"temperature": 0.01, "layers": "all"}),
        "clip",
        {"temperature": (0.01, 0.3, 0.6, 0.9), "layers": ENCODER_LAYERS, "flatness": (0.1, 0.2, 0.4, 0.8)},
    ),
    "ERG Guider": (
        Setting(
            negative=SAME, erg={"temperature": 0.3, "layers": "40%-50%"}, guider={"scale": 1.5, "negative_scale": 1.5}
        ),
        "guider",
        {"scale": (1.0, 1.25, 1.5, 2.0, 3.0), "negative_scale": (1.0, 1.25, 1.5, 2.0, 3.0)},
    ),
    "CADS": (
        Setting(2.0, cads={"noise_scale": 0.25, "mixing": 1.0, "tau1": 0.6, "tau2": 0.9}),
        "cads",
        {
            "noise_scale": (0.1, 0.25, 0.5, 1.0),
            "mixing": (0.0, 0.5, 1.0),
            "tau1": (0.4, 0.6, 0.8),
            "tau2": (0.8, 0.9, 1.0),
            "apply_to": ("positive", "negative", "both", "both, same noise"),
        },
    ),
}
NODES = {
    "ERG": "EntropyGuidanceERG",
    "ERG in a window": "EntropyGuidanceERG",
    "ERG of its own": "EntropyGuidanceERG",
    "ERG Text Encoder": "EntropyGuidanceCLIP",
    "ERG Guider": "EntropyGuidanceGuider",
    "CADS": "EntropyGuidanceCADS",
}
Point = tuple[str, str, str]  # node, input, value


def of_inputs() -> dict[Point, Setting]:
    """The Setting of each value of each input."""
    return {
        (node, name, str(value)): replace(base, **{field: {**getattr(base, field), name: value}})
        for node, (base, field, inputs) in AROUND.items()
        for name, values in inputs.items()
        for value in values
    }


def defaults() -> dict[str, dict[str, str]]:
    """Of each node its inputs' default values."""
    return {
        node: {name: str(value) for name, value in defaults_of(node_id).items() if name in AROUND[node][2]}
        for node, node_id in NODES.items()
    }


def of_encoder_temperature() -> dict[tuple[float, float], Setting]:
    """The Setting of C-ERG at each scale and each τc."""
    return {
        (w, τc): Setting(w, SAME, clip={"temperature": τc, "layers": "all"})
        for w in SCALES
        for τc in ENCODER_TEMPERATURES
    }
