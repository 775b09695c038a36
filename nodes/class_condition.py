"""The class that a class-conditional model draws, by name or number."""

from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..guidance_core.class_labels import parse_labels
from .class_conditional.class_model import ClassConditional, class_condition
from .common.inputs import CATEGORY


class EntropyGuidanceClassCondition(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EntropyGuidanceClassCondition",
            display_name="Class Condition",
            category=CATEGORY,
            description="The class that a model of Load ADM or Load DiT / SiT shall draw: what a prompt is to other "
            "models. There is no text encoder, so C-ERG has no meaning here; ERG works without it.",
            search_aliases=["class conditional", "imagenet", "label", "class embedding", "null class"],
            inputs=[
                io.Model.Input("model", tooltip="From Load ADM or Load DiT / SiT."),
                io.String.Input(
                    "labels", default="0", multiline=True,
                    tooltip="The class by name or number: one for all images, or one for each image of the batch, on "
                    "lines of their own or separated by commas. Empty is no class at all, for unconditional pictures.",
                ),
            ],
            outputs=[
                io.Conditioning.Output("class", tooltip="The positive condition."),
                io.Conditioning.Output(
                    "null class",
                    tooltip="The negative condition for CFG: no class. For models trained with one: DiT, SiT and the demo. "
                    "For ERG the negative may as well be the class.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, model: ModelPatcher, labels: str) -> io.NodeOutput:
        if not isinstance(model.model, ClassConditional):
            raise ValueError(
                f"model: {type(model.model).__name__} is drawn from prompts, not from classes. Wire a model of Load ADM or "
                "Load DiT / SiT, or use CLIP Text Encode."
            )
        null = _null_class(model)
        return io.NodeOutput(_class(model, labels, null), null)


def _class(model: ModelPatcher, labels: str, null: Any) -> Any:
    if not labels.strip():
        if isinstance(null, ExecutionBlocker):
            raise ValueError("labels is empty, and this model has no null class: write the class that it shall draw.")
        return null
    names = model.model.class_names
    if not names:
        raise ValueError(f"labels = {labels!r}: this model is unconditional and has no classes. Leave labels empty.")
    return class_condition(model, parse_labels(labels, names, "model"))


def _null_class(model: ModelPatcher) -> Any:
    """No class, where the model knows what that is; otherwise an error for whoever uses it."""
    network = model.model
    if network.class_names and network.null_class is None:
        return ExecutionBlocker(
            "null class: this model was trained without one, so that CFG has nothing to compare with. Wire the class to "
            "the negative too, with cfg 1 or with ERG."
        )
    return class_condition(model, () if network.null_class is None else (network.null_class,))
