"""Loads the bundled demo model: a text-to-image model of coloured shapes, small enough to try the pack on a CPU."""

from comfy_api.latest import io

from .common.inputs import CATEGORY


class EntropyGuidanceLoadDemo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EntropyGuidanceLoadDemo",
            display_name="Load Demo Model",
            category=CATEGORY,
            description="A tiny text-to-image model that comes with this pack and draws one or two coloured shapes at "
            "128×128, on a CPU in seconds. Prompt it like: a large red circle left of a blue square on a white "
            "background.",
            search_aliases=["entropy guidance demo", "checkpoint", "shapes"],
            outputs=[
                io.Model.Output(tooltip="Flow matching model of 128×128 pictures (Flux class, 12 blocks)."),
                io.Clip.Output(tooltip="Its text encoder (CLIP class, 4 layers). Colours: red, green, blue, yellow, "
                                       "purple, orange. Shapes: circle, square, triangle."),
                io.Vae.Output(tooltip="Its autoencoder (TAESD class, 4 channels at an eighth of the size)."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls) -> io.NodeOutput:
        from ..demo.loader import load_clip, load_diffusion_model, load_vae

        return io.NodeOutput(load_diffusion_model(), load_clip(), load_vae())
