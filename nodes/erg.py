"""I-ERG: the weak branch of guidance is the model itself with a flatter attention energy.

Entropy Rectifying Guidance, https://arxiv.org/abs/2504.13987. The formulas are in guidance_core/attention_energy.py.
"""

from comfy_api.latest import io

from ..guidance_core.attention_energy import AttentionEnergy
from ..guidance_core.layer_selection import parse_layers
from .attention.kinds import KINDS, tell_kinds
from .attention.reach import reach_attention
from .attention.weak_branch import WeakBranchAttention
from .common import CATEGORY, END_PERCENT, START_PERCENT, PercentWindow

KEY = "entropy_guidance_erg"


class EntropyGuidanceERG(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EntropyGuidanceERG",
            display_name="Entropy Rectifying Guidance (ERG)",
            category=CATEGORY,
            description="Flattens the attention of the negative branch of guidance, so that guidance leads away from "
            "a blurred version of the model itself. Works with any negative prompt, an empty one included, and costs "
            "as much as CFG. Has no effect at cfg 1, where there is no negative branch.",
            search_aliases=["entropy rectifying guidance", "i-erg", "attention temperature", "guidance", "cfg"],
            inputs=[
                io.Model.Input("model", tooltip="The model to guide, with or without LoRA."),
                io.Float.Input(
                    "temperature", default=0.3, min=0.0, max=10.0, step=0.01,
                    tooltip="Attention temperature τ of the negative branch: below 1 flattens its attention, 1 "
                    "changes nothing, above 1 sharpens it. The paper uses 0.01; nearer to 1 is gentler.",
                ),
                io.String.Input(
                    "layers", default="40%-50%",
                    tooltip="Which transformer blocks to change: 'all', a range of depth such as 40%-50%, numbers "
                    "such as 3, 7-9, and for SD1.5/SDXL also input, middle, output. The paper changes a few in the middle.",
                ),
                START_PERCENT,
                END_PERCENT,
                io.Combo.Input(
                    "attention", options=list(KINDS), default="all", advanced=True,
                    tooltip="Which attention to change: all, self (within the picture; joint picture-and-text "
                    "attention counts as self) or cross (from the picture to the prompt).",
                ),
                io.Float.Input(
                    "alpha", default=1.0, min=0.0, max=10.0, step=0.01, advanced=True,
                    tooltip="Weight α of what attention retrieves in the negative branch: 1 is ordinary, below 1 the chosen "
                    "layers add less to the picture, above 1 more.",
                ),
                io.Float.Input(
                    "step_size", default=1.0, min=0.0, max=10.0, step=0.01, advanced=True,
                    tooltip="Step size γ of the energy descent: 1 is ordinary attention, below 1 keeps some of what the "
                    "layer already held, above 1 overshoots. The paper saw a small gain at 1.5.",
                ),
                io.Int.Input(
                    "iterations", default=1, min=1, max=10, advanced=True,
                    tooltip="Number K of descent steps. Each one beyond the first costs another attention call in "
                    "the chosen layers.",
                ),
                io.Float.Input(
                    "flatness", default=-1.0, min=-1.0, max=1.0, step=0.01, optional=True,
                    tooltip="Takes the place of temperature, with the same effect in any model: how far the negative branch's "
                    "attention goes from its own (0, no change) to looking at everything alike (1). -1 is off: temperature "
                    "counts.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model with ERG: wire it to a KSampler, whose cfg is the guidance scale.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        model,
        temperature,
        layers,
        start_percent,
        end_percent,
        attention,
        alpha,
        step_size,
        iterations,
        flatness=-1.0,
    ) -> io.NodeOutput:
        energy = AttentionEnergy(temperature, alpha, step_size, iterations, flatness)
        branch = WeakBranchAttention(energy, parse_layers(layers), PercentWindow(start_percent, end_percent), attention)
        model = model.clone()
        if not energy.is_ordinary:
            reach_attention(model)
            if attention != "all":
                tell_kinds(model)
            branch.add_to(model, KEY)
        return io.NodeOutput(model)
