"""I-ERG: the weak branch of guidance is the model itself with a flatter attention energy.

Entropy Rectifying Guidance, https://arxiv.org/abs/2504.13987. The formulas are in guidance_core/attention_energy.py.
"""

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..guidance_core.attention_energy import AttentionEnergy
from ..guidance_core.layer_selection import parse_layers
from .attention.effect import why_ordinary
from .attention.kinds import KINDS
from .attention.tempered_evaluation import TemperedEvaluation
from .attention.weak_branch import WeakBranchAttention
from .common.inputs import CATEGORY, END_PERCENT, START_PERCENT
from .common.percent_window import PercentWindow
from .feedback import HIDDEN, Feedback
from .sampling.guidance_interval import OUTSIDE, interval_of
from .sampling.own_branch import OwnBranch

KEY = "entropy_guidance_erg"


class EntropyGuidanceERG(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EntropyGuidanceERG",
            display_name="Entropy Rectifying Guidance (ERG)",
            category=CATEGORY,
            description="Flattens the attention of the weak branch of guidance, so that guidance leads away from a "
            "blurred version of the model itself. With scale 0 the weak branch is the sampler's negative one, whatever its "
            "prompt, and a step costs as much as CFG. With scale above 0 it is one of its own, for any cfg, 1 included.",
            search_aliases=[
                "erg", "entropy rectifying guidance", "i-erg", "attention temperature", "guidance", "cfg", "cfg alternative",
                "cfg 1", "distilled model", "diversity",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model to guide, with or without LoRA."),
                io.Float.Input(
                    "temperature", default=0.3, min=0.0, max=10.0, step=0.01,
                    tooltip="Attention temperature τ of the weak branch: below 1 flattens its attention, 1 "
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
                    tooltip="Weight α of what attention retrieves in the weak branch: 1 is ordinary, below 1 the chosen "
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
                    "scale", default=0.0, min=0.0, max=100.0, step=0.05, optional=True,
                    tooltip="Strength of a weak branch of its own, on top of the sampler's cfg: the positive prompt once more, "
                    "with flatter attention. For any cfg: at cfg 1 (Flux dev, distilled models) try 0.5. 0: the "
                    "sampler's negative branch is the weak one, and cfg the strength.",
                ),
                io.Float.Input(
                    "rescale", default=0.0, min=0.0, max=1.0, step=0.01, optional=True, advanced=True,
                    tooltip="With scale above 0: how far the contrast that guidance adds is taken back, from 0 (not at all) to 1. "
                    "Against burnt colours at high strengths.",
                ),
                io.Combo.Input(
                    "outside", options=list(OUTSIDE), default=OUTSIDE[0], optional=True, advanced=True,
                    tooltip="What happens outside of start_percent and end_percent. ordinary: guidance without ERG, with cfg as "
                    "always. no guidance: neither cfg nor ERG, so such a step costs one evaluation instead of two.",
                ),
                io.Float.Input(
                    "flatness", default=-1.0, min=-1.0, max=1.0, step=0.01, optional=True, advanced=True,
                    tooltip="Takes the place of temperature: how far the weak branch's attention goes from its own (0, no change) to "
                    "looking at everything alike (1), measured in each picture, layer and head. How much is good depends on the "
                    "layers: 0.2 or below where many are changed, more for one. -1 is off: temperature counts.",
                ),
                io.Boolean.Input(
                    "share_trunk", default=True, optional=True, advanced=True,
                    tooltip="Where both branches have the same prompt, compute what comes before the first changed layer once "
                    "for both: faster, and the same picture to rounding. Off computes everything twice.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model with ERG: wire it to a sampler.")],
            hidden=[*HIDDEN],
            not_idempotent=True,
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        temperature: float,
        layers: str,
        start_percent: float,
        end_percent: float,
        attention: str,
        alpha: float,
        step_size: float,
        iterations: int,
        scale: float = 0.0,
        rescale: float = 0.0,
        outside: str = OUTSIDE[0],
        flatness: float = -1.0,
        share_trunk: bool = True,
    ) -> io.NodeOutput:
        energy = AttentionEnergy(temperature, alpha, step_size, iterations, flatness)
        window = PercentWindow(start_percent, end_percent)
        own, interval = OwnBranch(scale, rescale), interval_of(window, outside)
        evaluation = TemperedEvaluation(energy, parse_layers(layers), attention, share_trunk)
        branch = WeakBranchAttention(evaluation, window, Feedback.of(cls), own if scale > 0 else None, interval)
        model = model.clone()
        if interval is not None:
            interval.add_to(model, KEY)
        if energy.is_ordinary and interval is not None:
            branch.feedback.say(f"No guidance outside of the window, and no ERG in it: {why_ordinary(energy)}")
        elif energy.is_ordinary:
            branch.feedback.say_without_effect(why_ordinary(energy))
        else:
            branch.add_to(model, KEY)
        return io.NodeOutput(model)
