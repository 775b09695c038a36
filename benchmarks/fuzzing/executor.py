"""ComfyUI's own executor, without a port: a prompt is checked and run as the server does it."""

import asyncio
from dataclasses import dataclass, field

import execution  # ComfyUI's

from .custom_nodes.ends_of_graphs import Kept
from .outcome import Outcome, judge

CACHE = {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}


@dataclass
class Executor:
    """server: ComfyUI's PromptServer. Each executor has a cache of its own."""

    server: object
    _executor: execution.PromptExecutor = field(init=False)

    def __post_init__(self):
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
