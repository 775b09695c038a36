"""What a node declares of its inputs, asked once: some look through folders for it."""

from functools import cache

import nodes  # ComfyUI's


@cache
def declared(kind: str) -> tuple[dict, dict]:
    """The required and the optional inputs of a node, each with its type and options."""
    inputs = nodes.NODE_CLASS_MAPPINGS[kind].INPUT_TYPES()
    return inputs.get("required", {}), inputs.get("optional", {})


def all_declared(kind: str) -> dict:
    required, optional = declared(kind)
    return required | optional
