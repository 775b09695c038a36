"""CADS: noise on the prompt's embedding early in the sampling, less and less of it, so that pictures vary more.

Condition-Annealed Diffusion Sampler, https://arxiv.org/abs/2310.17347. The formulas are in
guidance_core/condition_annealing.py.
"""

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import io

from ..guidance_core.condition_annealing import ConditionAnnealing
from .common.inputs import CATEGORY
from .feedback import HIDDEN, Feedback
from .sampling.annealed_conditions import BRANCHES, AnnealedConditions
from .sampling.condition_names import POSITIVE

KEY = "entropy_guidance_cads"


class EntropyGuidanceCADS(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EntropyGuidanceCADS",
            display_name="Condition-Annealed Sampling (CADS)",
            category=CATEGORY,
            description="Makes pictures of one prompt more varied: early in the sampling, while composition is decided, the "
            "prompt is hidden in noise that is another one for each picture, and then comes back bit by bit. Costs "
            "no evaluation and works with CFG, ERG and any sampler.",
            search_aliases=["cads", "condition annealing", "diversity", "variety", "variation", "noise on the prompt"],
            inputs=[
                io.Model.Input("model", tooltip="The model to sample with, before or after LoRA and ERG."),
                io.Float.Input(
                    "noise_scale", default=0.25, min=0.0, max=100.0, step=0.01,
                    tooltip="Strength s of the noise, in units of the text embedding: more gives more variety and less of "
                    "the prompt. 0 changes nothing.",
                ),
                io.Float.Input(
                    "mixing", default=1.0, min=0.0, max=1.0, step=0.01,
                    tooltip="ψ: how far the noisy embedding is brought back to the mean and spread it had. 1 keeps pictures "
                    "clean, lower is more varied.",
                ),
                io.Float.Input(
                    "tau1", default=0.6, min=0.0, max=1.0, step=0.01,
                    tooltip="Time τ1 (1 is the start of the sampling, 0 its end) from which the prompt is fully there. "
                    "Lower gives more variety.",
                ),
                io.Float.Input(
                    "tau2", default=0.9, min=0.0, max=1.0, step=0.01,
                    tooltip="Time τ2 (1 is the start of the sampling, 0 its end) until which there is noise in the place of "
                    "the prompt. From here to tau1 the prompt comes back. Not below tau1.",
                ),
                io.Combo.Input(
                    "apply_to", options=list(BRANCHES), default=POSITIVE,
                    tooltip="Which prompt gets the noise: the positive one, the negative one, or both, each its own. The same noise "
                    "on both is for ERG with one prompt on both inputs.",
                ),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
                    tooltip="Seed of the noise on the prompt. The same seed gives the same pictures again.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model with CADS: wire it to a sampler.")],
            hidden=[*HIDDEN],
            not_idempotent=True,
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model: ModelPatcher, noise_scale: float, mixing: float, tau1: float, tau2: float, apply_to: str, seed: int
    ) -> io.NodeOutput:
        annealing = ConditionAnnealing(noise_scale, mixing, tau1, tau2)
        conditions = AnnealedConditions(annealing, apply_to, seed, Feedback.of(cls))
        model = model.clone()
        if annealing.is_ordinary:
            conditions.feedback.say_without_effect(annealing.why_ordinary)
        else:
            model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, conditions)
            model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, conditions.sample)
        return io.NodeOutput(model)
