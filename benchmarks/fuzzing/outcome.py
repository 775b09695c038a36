"""What came of a graph: a finite result, or a clear error. Anything else is a failure."""

import re
from dataclasses import dataclass

from tools.environment import COMFYUI, DEV, PACK, REPOSITORY

from ..in_process import pack_module, pack_node_ids
from .custom_nodes.ends_of_graphs import NODE_CLASS_MAPPINGS, tensors
from .declared import all_declared

FINISHED, REFUSED, STOPPED = "finished", "refused before it ran", "stopped with a clear error"
FAILED = "failed"
NOT_FINITE, NOT_OURS = "not finite", "error that is not ours"
CLEAR = ("ValueError", "RuntimeError")
NAMED = re.compile(r"((?:\w+(?:, or |, | or | and ))*\w+)(?= =|:)")  # what a message says of an input, or of several


@dataclass(frozen=True)
class Outcome:
    """kind: FINISHED, REFUSED, STOPPED or FAILED. why: the message, or what is wrong."""

    kind: str
    why: str = ""


def judge(graph: dict, valid: bool, error: dict | None, refused: dict, messages: dict, kept: dict) -> Outcome:
    """valid, error, refused: ComfyUI's words on the prompt before it runs. messages: its events. kept: the results."""
    if not valid:
        return _refused(error, refused)
    if "execution_error" in messages:
        return _stopped(graph, messages["execution_error"])
    if "execution_success" not in messages:
        return Outcome(FAILED, f"neither success nor error: {sorted(messages)}")
    if words := _unknown_words(graph):
        return Outcome(FAILED, f"took words that are not among its choices: {words}")
    broken = [f"{[*values.shape]}" for values in tensors(kept) if not values.isfinite().all()]
    return Outcome(FAILED, f"{NOT_FINITE}: {', '.join(broken)}") if broken else Outcome(FINISHED)


def _refused(error: dict | None, refused: dict) -> Outcome:
    reasons = [reason for node in refused.values() for reason in node["errors"]]
    named = reasons and all(reason["extra_info"].get("input_name") for reason in reasons)
    words = "; ".join(f"{reason['details']}: {reason['message']}" for reason in reasons) or str(error)
    return Outcome(REFUSED if named else FAILED, words)


def _stopped(graph: dict, error: dict) -> Outcome:
    message, kind = error["exception_message"].strip(), error["exception_type"]
    words = f"{error['node_type']}: {kind}: {message}"
    printable = pack_module("nodes.common.printable").printable(words)
    if words != printable:
        return Outcome(FAILED, f"error that no log can print: {printable}")
    if kind not in CLEAR:
        return Outcome(FAILED, f"bare error: {words}")
    if not _raised_by_us(error["traceback"]):
        return Outcome(FAILED, f"{NOT_OURS}: {words}\n{error['traceback'][-1]}")
    named = {word for part in NAMED.findall(message) for word in re.findall(r"\w+", part)}
    if not named & _inputs(graph, error["node_id"]):
        return Outcome(FAILED, f"error that names no input: {words}")
    return Outcome(STOPPED, words)


def _raised_by_us(traceback: list[str]) -> bool:
    """Whether it ends in a `raise` of the pack's, rather than in what its code called: a server has the pack by a link."""
    place, code, *_ = traceback[-1].splitlines()
    elsewhere = f"{DEV}/" in place or f"{COMFYUI}/" in place
    is_ours = f"custom_nodes/{PACK}/" in place or f"{REPOSITORY}/" in place and not elsewhere
    return is_ours and code.strip().startswith("raise ")


def _unknown_words(graph: dict) -> list[str]:
    """What links bring to inputs that have a list of choices, and is in none."""
    found = []
    for node in graph.values():
        if node["class_type"] in pack_node_ids():
            for name, (kind, options) in all_declared(node["class_type"]).items():
                link = node["inputs"].get(name)
                if (
                    kind == "COMBO"
                    and isinstance(link, list)
                    and graph[link[0]]["inputs"]["value"] not in options["options"]
                ):
                    found.append(f"{node['class_type']}.{name}")
    return found


def _inputs(graph: dict, name: str) -> set[str]:
    """The names of all inputs of a node and of those that it hangs on, but for those of these graphs alone."""
    kinds = {graph[one]["class_type"] for one in _with_those_before(graph, name)} - NODE_CLASS_MAPPINGS.keys()
    return {name for kind in kinds for name in all_declared(kind)}


def _with_those_before(graph: dict, name: str) -> set[str]:
    links = [value[0] for value in graph[name]["inputs"].values() if isinstance(value, list)]
    return {name}.union(*(_with_those_before(graph, before) for before in links))
