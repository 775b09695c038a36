"""Loads DiT and SiT, transformers that draw ImageNet's classes in the latent space of Stable Diffusion's VAE."""

from comfy_api.latest import io

from .class_conditional.dit_file import read
from .class_conditional.files import fingerprint, load_model, model_names
from .common.inputs import CATEGORY


class EntropyGuidanceLoadDiT(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EntropyGuidanceLoadDiT",
            display_name="Load DiT / SiT",
            category=CATEGORY,
            description="Loads a DiT or SiT as published, such as DiT-XL-2-256x256.pt or SiT-XL-2-256.pt: it draws one of "
            "ImageNet's classes rather than a text. Put it into ComfyUI/models/diffusion_models.",
            search_aliases=["dit", "sit", "imagenet", "class conditional", "diffusion transformer", "DiT-XL-2-256x256"],
            inputs=[
                io.Combo.Input(
                    "model_name", options=model_names(),
                    tooltip="A .pt or .safetensors file whose name says DiT or SiT, because their weights look the same.",
                )
            ],
            outputs=[
                io.Model.Output(
                    tooltip="The model. Its conditions come from Class Condition, its latent from Empty Latent Image of its "
                    "own size (256 or 512), and its picture from VAE Decode with the VAE of Stable Diffusion 1.5."
                )
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, model_name: str | None) -> list[tuple[str, int, int]]:
        """So that a file that was written anew is read."""
        return fingerprint(model_name)

    @classmethod
    def execute(cls, model_name: str) -> io.NodeOutput:
        return io.NodeOutput(load_model(model_name, read))
