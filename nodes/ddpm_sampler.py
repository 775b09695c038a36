"""The DDPM sampler with classifier guidance on a sine schedule, as the papers use it."""

from typing import Any

import comfy.samplers
from comfy_api.latest import io

from ..guidance_core.ddpm_variance import VARIANCES
from ..guidance_core.named_choice import check_choice
from ..guidance_core.number_range import check_number
from .classifiers.guidance_score import GuidanceScore, ScoreSocket
from .classifiers.guided_ddpm import GuidedDDPM
from .classifiers.latent_decoder import small_decoders
from .common.inputs import CATEGORY, TILT, VAE
from .feedback import HIDDEN, Feedback


class EntropyGuidanceDDPMSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EntropyGuidanceDDPMSampler",
            display_name="Guided DDPM Sampler",
            category=CATEGORY,
            description="The papers' own sampler: DDPM, whose mean moves along the score's gradient, with a strength "
            "that rises and falls over the steps like a sine. For SamplerCustom and SamplerCustomAdvanced.",
            search_aliases=["classifier guidance", "ddpm", "ancestral"],
            inputs=[
                ScoreSocket.Input("score", tooltip="From Guidance Score: the classifier and the wanted class."),
                io.Float.Input(
                    "scale", default=1.0, min=0.0, max=100000.0, step=0.1,
                    tooltip="Strength of guidance: factor of the gradient. 0 is DDPM without guidance.",
                ),
                io.Float.Input(
                    "gamma", default=0.3, min=0.0, max=10.0, step=0.05,
                    tooltip="Size γ of the sine that is added to each step's own variance as the weight of guidance, as "
                    "a share of the largest variance. The paper uses 0.3; 0 is plain DDPM guidance.",
                ),
                TILT,
                VAE,
                io.Combo.Input(
                    "variance", options=list(VARIANCES), default="small", optional=True,
                    tooltip="How much noise a step adds, and the weight of guidance with it. small and large: the bounds "
                    "that its schedule allows. learned: what the model says of each value, as in the papers; models of "
                    "guided-diffusion and DiT alone do.",
                ),
            ],
            outputs=[
                io.Sampler.Output(
                    tooltip="The sampler: wire it to SamplerCustom or SamplerCustomAdvanced. The papers take 250 steps, which "
                    "are those of BasicScheduler with the scheduler normal."
                )
            ],
            hidden=[*HIDDEN],
            not_idempotent=True,
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> list[str]:
        """The small decoders, one of which shows the classifier its pictures as soon as it is there."""
        return small_decoders()

    @classmethod
    def execute(
        cls, score: GuidanceScore, scale: float, gamma: float, tilt: float, vae: Any = None, variance: str = "small"
    ) -> io.NodeOutput:
        check_number("scale", scale, lowest=0)
        check_number("gamma", gamma, lowest=0)
        check_number("tilt", tilt)
        check_choice("variance", variance, VARIANCES)
        sampler = GuidedDDPM(score, scale, gamma, tilt, vae, variance, Feedback.of(cls))
        if scale == 0:
            sampler.feedback.say_without_effect("scale is 0. Set it above 0.")
        return io.NodeOutput(comfy.samplers.KSAMPLER(sampler))
