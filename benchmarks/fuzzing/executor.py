"""ComfyUI's own executor, without a port: a prompt is checked and run as the server does it."""

import asyncio
from dataclasses import dataclass, field

import execution  # ComfyUI's

import nodes  # ComfyUI's

from .outcome import Outcome, judge

CACHE = {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}


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
    """The end of a graph: keeps what it gets, cached or not, by its own name in the graph."""

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
        return {}


@dataclass
class Executor:
    """server: ComfyUI's PromptServer. Each executor has a cache of its own."""

    server: object
    _executor: execution.PromptExecutor = field(init=False)

    def __post_init__(self):
        nodes.NODE_CLASS_MAPPINGS.update(AnyValue=AnyValue, Kept=Kept)
        self._executor = execution.PromptExecutor(self.server, execution.CacheType.CLASSIC, CACHE)

    def run(self, graph: dict) -> tuple[Outcome, dict]:
        """What came of a graph in the format of the HTTP API, and what its ends kept."""
        Kept.values = {}
        prompt = {name: {**node, "inputs": dict(node["inputs"])} for name, node in graph.items()}
        valid, error, ends, refused = asyncio.run(execution.validate_prompt("fuzzing", prompt, None))
        if valid:
            self._executor.execute(prompt, "fuzzing", {}, ends)
        return judge(graph, valid, error, refused, dict(self._executor.status_messages), Kept.values), Kept.values


def prompt_server():
    """ComfyUI's, with everything but a port."""
    import server

    return server.PromptServer(asyncio.new_event_loop())
