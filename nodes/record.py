"""Records what guidance does in a sampling, for Plot Guidance."""

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from .common.inputs import CATEGORY
from .recording.recorder import Recorder, RecordSocket


class EntropyGuidanceRecord(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EntropyGuidanceRecord",
            display_name="Record Guidance",
            category=CATEGORY,
            description="Records what guidance does in each step of a sampling: how strong it is and where it leads, how "
            "evenly the attention of each branch looks around, and how sure a guiding classifier is. The pictures stay the "
            "same, bit for bit. Plot Guidance draws it.",
            search_aliases=["record", "inspect", "debug guidance", "attention entropy", "guidance norm"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model as the sampler would get it: after ERG, CADS, Apply Classifier Guidance and other nodes.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The same model: wire it to the sampler or its guider."),
                RecordSocket.Output(
                    "record", display_name="record",
                    tooltip="What was seen of each sampling with this model: wire it to Plot Guidance.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def execute(cls, model: ModelPatcher) -> io.NodeOutput:
        recorder = Recorder() if cls.hidden.unique_id is None else Recorder(cls.hidden.unique_id)
        model = model.clone()
        recorder.add_to(model)
        return io.NodeOutput(model, recorder)
