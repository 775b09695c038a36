"""Classifier guidance: moves each x0 prediction along the gradient of a score, for any model and sampler."""

from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from .classifiers.classifier_guidance import ClassifierGuidance
from .classifiers.guidance_score import GuidanceScore, ScoreSocket
from .classifiers.latent_decoder import MODES, small_decoders
from .classifiers.score_gradient import score_gradient
from .common.inputs import CATEGORY, END_PERCENT, START_PERCENT, TILT, VAE
from .common.percent_window import PercentWindow
from .feedback import HIDDEN, Feedback


class EntropyGuidanceApply(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EntropyGuidanceApply",
            display_name="Apply Classifier Guidance",
            category=CATEGORY,
            description="Steers the sampling towards what a classifier recognises as the wanted class. Works with any "
            "sampler, with or without a prompt, and together with CFG, ERG and APG.",
            search_aliases=["classifier guidance", "divergence", "tilted sampling"],
            inputs=[
                io.Model.Input("model", tooltip="The model to guide."),
                ScoreSocket.Input("score", tooltip="From Guidance Score: the classifier and the wanted class."),
                io.Float.Input(
                    "scale", default=0.3, min=0.0, max=1000.0, step=0.01,
                    tooltip="Strength of guidance; 0 changes nothing. With normalize on, how far a step moves the predicted "
                    "picture while all is noise, as a share of its own size, and less as the noise goes; without, the "
                    "factor of the gradient.",
                ),
                TILT,
                io.Boolean.Input(
                    "normalize", default=True,
                    tooltip="Scales each gradient to the predicted picture's own size (its root mean square) and the noise "
                    "that is left, so that one scale serves every model. Off: the gradient as it is, times σ² (noise) or "
                    "σ²/(1 − σ) (flow).",
                ),
                START_PERCENT,
                END_PERCENT,
                io.Int.Input(
                    "every", default=4, min=1, max=100, advanced=True,
                    tooltip="Guide only in the middle one of every n steps, with the strength of all n together: n times "
                    "cheaper. The steps are the scheduler's, also where a sampler evaluates several times in one.",
                ),
                VAE,
                io.Combo.Input(
                    "decode", options=list(MODES), default="auto", optional=True, advanced=True,
                    tooltip="How pictures are decoded for the classifier. full: the VAE, slow. half: the VAE at half "
                    "the size. taesd: the small decoder of previews, from models/vae_approx. auto: taesd where it is "
                    "present or the VAE is one itself, otherwise half.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model with classifier guidance: wire it to a sampler.")],
            hidden=[*HIDDEN],
            not_idempotent=True,
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, decode: str | None = "auto", **_: Any) -> list[str]:
        """The small decoders, one of which decode = auto takes as soon as it is there."""
        return small_decoders(decode)

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        score: GuidanceScore,
        scale: float,
        tilt: float,
        normalize: bool,
        start_percent: float,
        end_percent: float,
        every: int,
        vae: Any = None,
        decode: str = "auto",
    ) -> io.NodeOutput:
        guidance = ClassifierGuidance(
            score_gradient(score, model, vae, decode), scale, tilt, normalize,
            PercentWindow(start_percent, end_percent), every, Feedback.of(cls),
        )  # fmt: skip
        model = model.clone()
        if scale == 0:
            guidance.feedback.say_without_effect("scale is 0. Set it above 0.")
            return io.NodeOutput(model)
        guidance.add_to(model)
        return io.NodeOutput(model)
