"""Draws what Record Guidance saw of a sampling."""

from typing import Any

from comfy_api.latest import io

from .common.inputs import CATEGORY
from .drawing.figure import check_matplotlib
from .recording.guidance_picture import guidance_picture
from .recording.recorder import Recorder, RecordSocket


class EntropyGuidancePlot(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EntropyGuidancePlot",
            display_name="Plot Guidance",
            category=CATEGORY,
            description="One picture of what guidance did in a sampling: the picture as it came about, size and angle of "
            "guidance, the attention entropy of each branch, and a guiding classifier's certainty.",
            search_aliases=["plot", "graph", "curve", "heat map", "visualize guidance", "attention entropy"],
            inputs=[
                RecordSocket.Input("record", tooltip="From Record Guidance."),
                io.Latent.Input(
                    "latent",
                    tooltip="What the sampler drew with the recorded model. It makes the plot wait for the sampling, and is its "
                    "last picture.",
                ),
            ],
            outputs=[io.Image.Output("picture", tooltip="The plot, 1200 pixels wide.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, record: Recorder, latent: dict[str, Any]) -> io.NodeOutput:
        check_matplotlib()
        samples = latent["samples"]
        samples = samples.unbind()[0] if samples.is_nested else samples
        return io.NodeOutput(guidance_picture(record.of(samples), samples))
