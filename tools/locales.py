"""The English strings of locales/, read from the nodes' schemas. `python -m tools.locales` writes them anew.

The frontend shows a string of locales/LANGUAGE in the place of a node's own; it reads names, descriptions and tooltips, and
no options of a combo. The other languages have the keys of the English, and are written by hand.
"""

import asyncio
import json
from pathlib import Path

from .environment import REPOSITORY

LOCALES = REPOSITORY / "locales"


def english(node_classes) -> dict[str, dict]:
    """What stands in each file of locales/en, for classes of nodes."""
    schemas = [node.GET_SCHEMA() for node in node_classes]
    return {
        "nodeDefs.json": {schema.node_id: node_strings(schema) for schema in schemas},
        "main.json": {"nodeCategories": {part: part for schema in schemas for part in schema.category.split("/")}},
    }


def node_strings(schema) -> dict:
    """The strings of one node, under the keys that the frontend asks for."""
    strings: dict = {"display_name": schema.display_name, "description": schema.description}
    inputs = {i.id: {"name": i.display_name or i.id, "tooltip": i.tooltip} for i in schema.inputs}
    outputs = {str(place): output_strings(output) for place, output in enumerate(schema.outputs)}
    return strings | ({"inputs": inputs} if inputs else {}) | ({"outputs": outputs} if outputs else {})


def output_strings(output) -> dict[str, str]:
    """An output without a name of its own has that of its type, which the frontend translates itself."""
    return ({"name": output.display_name} if output.display_name else {}) | {"tooltip": output.tooltip}


def as_json(strings: dict) -> str:
    return json.dumps(strings, ensure_ascii=False, indent=2) + "\n"


def write(folder: Path, files: dict[str, dict]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, strings in files.items():
        (folder / name).write_text(as_json(strings), encoding="utf-8")


def main() -> None:
    from benchmarks.in_process import nodes

    asyncio.run(nodes.load_custom_node(str(REPOSITORY)))
    ours = [node for name, node in nodes.NODE_CLASS_MAPPINGS.items() if name.startswith("EntropyGuidance")]
    write(LOCALES / "en", english(ours))


if __name__ == "__main__":
    main()
