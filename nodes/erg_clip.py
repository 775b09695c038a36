"""C-ERG: the weak condition is the same prompt, read by a text encoder with another self-attention temperature.

Entropy Rectifying Guidance, https://arxiv.org/abs/2504.13987.
"""

from typing import Any

from comfy_api.latest import io

from ..guidance_core.attention_energy import AttentionEnergy
from ..guidance_core.layer_selection import parse_layers
from .attention.effect import why_ordinary
from .attention.text_encoder import temper_text_encoders
from .common.inputs import CATEGORY
from .feedback import HIDDEN, Feedback


class EntropyGuidanceCLIP(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EntropyGuidanceCLIP",
            display_name="ERG Text Encoder (C-ERG)",
            category=CATEGORY,
            description="A text encoder that reads a prompt with flatter self-attention. Encode the same prompt with "
            "it and wire that to the negative input of the sampler: guidance then leads away from a muddled reading "
            "of the prompt. The CLIP that goes in stays as it is.",
            search_aliases=["entropy rectifying guidance", "c-erg", "text encoder temperature", "guidance"],
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder. It stays as it is; only the output is changed."),
                io.Float.Input(
                    "temperature", default=0.01, min=0.0, max=10.0, step=0.01,
                    tooltip="Attention temperature τc of the text encoder: below 1 flattens the attention between words, "
                    "1 changes nothing. In the paper, below 1 made pictures follow the prompt better, above 1 more varied.",
                ),
                io.String.Input(
                    "layers", default="all",
                    tooltip="Which layers of the text encoder to change: 'all', a range of depth such as 60%-80%, or "
                    "numbers such as 3, 7-9. With several encoders (SDXL, SD3, Flux) each one by its own depth.",
                ),
                io.Float.Input(
                    "flatness", default=-1.0, min=-1.0, max=1.0, step=0.01, optional=True, advanced=True,
                    tooltip="Takes the place of temperature: how far the encoder's attention goes from its own (0, no change) to "
                    "looking at all words alike (1). -1 is off: temperature counts.",
                ),
            ],
            outputs=[io.Clip.Output(tooltip="The changed text encoder: encode the positive prompt again with it and "
                                    "wire the result to the sampler's negative input.")],
            hidden=[*HIDDEN],
            not_idempotent=True,
        )  # fmt: skip

    @classmethod
    def execute(cls, clip: Any, temperature: float, layers: str, flatness: float = -1.0) -> io.NodeOutput:
        energy, selection = AttentionEnergy(temperature, flatness=flatness), parse_layers(layers)
        feedback = Feedback.of(cls)
        if energy.is_ordinary:
            feedback.say_without_effect(why_ordinary(energy))
            return io.NodeOutput(clip.clone())
        return io.NodeOutput(temper_text_encoders(clip, energy, selection, feedback))
