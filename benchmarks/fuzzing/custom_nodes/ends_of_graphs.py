"""Custom nodes for graphs at random: any value of another pack's, and an end that keeps what it gets. A server loads this file, too."""

from collections.abc import Iterator

import torch


def tensors(values) -> Iterator[torch.Tensor]:
    """In lists, dictionaries and numbers."""
    if torch.is_tensor(values):
        yield values
    elif isinstance(values, float):
        yield torch.tensor(values)
    elif isinstance(values, dict):
        yield from tensors([*values.values()])
    elif isinstance(values, list | tuple):
        for value in values:
            yield from tensors(value)


class AnyValue:
    """A node of another pack, whose output fits every input and has any value."""

    RETURN_TYPES = ("*",)
    FUNCTION = "give"
    CATEGORY = "fuzzing"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("*",)}}

    def give(self, value):
        return (value,)


class Kept:
    """The end of a graph: keeps what it gets, cached or not, by its own name in the graph, and says whether it is finite."""

    RETURN_TYPES = ()
    FUNCTION = "keep"
    CATEGORY = "fuzzing"
    OUTPUT_NODE = True
    values: dict = {}

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("*",)}, "hidden": {"name": "UNIQUE_ID"}}

    @classmethod
    def IS_CHANGED(cls, value):
        return float("nan")

    def keep(self, value, name):
        self.values[name] = value
        return {"ui": {"finite": [all(bool(tensor.isfinite().all()) for tensor in tensors(value))]}}


NODE_CLASS_MAPPINGS = {"AnyValue": AnyValue, "Kept": Kept}
