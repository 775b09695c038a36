"""Loads guided-diffusion's U-Nets (ADM), which draw ImageNet's classes in pixel space."""

from typing import Any

from comfy_api.latest import io

from .class_conditional.adm_unet_file import read
from .class_conditional.class_model import held_to_pictures
from .class_conditional.files import DEMO, fingerprint, load_model, model_names
from .common.inputs import CATEGORY


class EntropyGuidanceLoadADM(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EntropyGuidanceLoadADM",
            display_name="Load ADM (guided-diffusion)",
            category=CATEGORY,
            description="Loads a diffusion model of guided-diffusion as published, such as 128x128_diffusion.pt: it draws a "
            "class rather than a text, in pixels, without a VAE. Put it into ComfyUI/models/diffusion_models.",
            search_aliases=["guided diffusion", "imagenet", "class conditional", "pixel space", "ddpm", "128x128_diffusion"],
            inputs=[
                io.Combo.Input(
                    "model_name", options=[DEMO, *model_names()], default=DEMO,
                    tooltip="A .pt or .safetensors file: 64x64, 128x128, 256x256, 256x256 uncond or 512x512 _diffusion. "
                    "entropy-guidance-demo-classes comes with this pack and draws 18 classes at 32×32.",
                ),
                io.Boolean.Input(
                    "clip_denoised", default=True, optional=True, advanced=True,
                    tooltip="Holds each step's prediction to the range of pictures, after CFG, as guided-diffusion does. "
                    "Off: the model as it is.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    tooltip="The model. Its conditions come from Class Condition, its latent from "
                    "EmptyChromaRadianceLatentImage, and its picture from VAE Decode with the VAE 'pixel_space'."
                )
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, model_name: str | None, **_: Any) -> list[tuple[str, int, int]]:
        """So that a file that was written anew is read."""
        return fingerprint(model_name)

    @classmethod
    def execute(cls, model_name: str, clip_denoised: bool = True) -> io.NodeOutput:
        model = load_model(model_name, read)
        if clip_denoised:
            model.set_model_sampler_post_cfg_function(held_to_pictures)
        return io.NodeOutput(model)
