"""Which nodes a ComfyUI gets: all whose part of the contract it keeps. What it has moved is said in one message."""

import importlib
import logging
from collections.abc import Mapping

from .check import Contract, Finding, findings, read


def nodes_that_work(menu: Mapping[str, str], package: str) -> list[type]:
    """The classes of the nodes that can be had. Errors of the pack's own code are raised.

    menu: the file of nodes/ of each class. package: the pack's name as Python knows it.
    """
    contract = read()
    moved = [finding for finding in findings(contract.rows) if finding.here]
    unavailable = {node for finding in moved if not finding.is_soft for node in contract.nodes_of(finding)}
    classes, broken = [], {}
    for name, file in menu.items():
        if file in unavailable:
            continue
        try:
            classes.append(getattr(importlib.import_module(f"{package}.nodes.{file}"), name))
        except ImportError as error:
            if (error.name or "").startswith(package):
                raise
            broken[file] = error  # a package that is missing, or a ComfyUI that is broken itself
    if moved or broken:
        logging.error("%s", message(contract, moved, broken, menu))
    return classes


def message(
    contract: Contract, moved: list[Finding], broken: Mapping[str, ImportError], menu: Mapping[str, str]
) -> str:
    """What was moved, which file of the pack relies on it, and which nodes there are not because of it."""
    names = {file: name for name, file in menu.items()}
    lines = ["Entropy Guidance and this ComfyUI do not fit in all places; a newer release of the pack may."]
    lines += [contract.effect(finding, names) for finding in moved]
    lines += [f"nodes/{file}.py: {error}. Not available: {names[file]}." for file, error in broken.items()]
    return "\n  ".join([*lines, "The other nodes need none of this."])
