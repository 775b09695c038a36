"""ERG and an artist's own negative prompt at once, for SamplerCustomAdvanced."""

from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..guidance_core.number_range import check_number
from .common.inputs import CATEGORY
from .feedback import HIDDEN, Feedback
from .sampling.entropy_guider import EntropyGuider


class EntropyGuidanceGuider(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EntropyGuidanceGuider",
            display_name="ERG Guider",
            category=CATEGORY,
            description="Guides away from a weak branch and, if you like, from a negative prompt of your own at the same "
            "time, each with its own strength. For SamplerCustomAdvanced. Two network evaluations a step, three with a "
            "negative prompt, in one batch where memory allows.",
            search_aliases=["entropy rectifying guidance", "erg", "guider", "negative prompt", "dual cfg"],
            inputs=[
                io.Model.Input("model", tooltip="The model; put ERG before it, so that the weak branch is weaker."),
                io.Conditioning.Input("positive", tooltip="What the picture should show."),
                io.Conditioning.Input(
                    "weak",
                    tooltip="The condition of the weak branch, which ERG flattens: the same prompt through ERG Text "
                    "Encoder, or an empty prompt.",
                ),
                io.Float.Input(
                    "scale", default=2.0, min=0.0, max=100.0, step=0.1,
                    tooltip="Strength of the guidance away from the weak branch, as a KSampler's cfg; 1 is off.",
                ),
                io.Conditioning.Input(
                    "negative", optional=True,
                    tooltip="What the picture should not show. ERG leaves this branch as it is.",
                ),
                io.Float.Input(
                    "negative_scale", default=2.0, min=0.0, max=100.0, step=0.1, optional=True,
                    tooltip="Strength of the guidance away from the negative prompt, as a KSampler's cfg; 1 is off.",
                ),
            ],
            outputs=[io.Guider.Output(tooltip="Wire it to SamplerCustomAdvanced.")],
            hidden=[*HIDDEN],
            not_idempotent=True,
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        positive: Any,
        weak: Any,
        scale: float,
        negative: Any = None,
        negative_scale: float = 2.0,
    ) -> io.NodeOutput:
        check_number("scale", scale, lowest=0)
        check_number("negative_scale", negative_scale, lowest=0)
        guider = EntropyGuider(model, Feedback.of(cls))
        guider.set_conds(positive, weak, negative)
        guider.set_scales(scale, negative_scale)
        return io.NodeOutput(guider)
