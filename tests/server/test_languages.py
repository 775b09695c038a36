"""The frontend in another language than English: it shows the strings of locales/."""

import json

import pytest
from browser import needs_browser
from help_panel import shown_help

from tools.frontend import STORE, frontend, open_workflow
from tools.locales import LOCALES

LANGUAGES = sorted(path.name for path in LOCALES.iterdir())
OFFERED = f"() => {STORE}('setting').settingsById['Comfy.Locale'].options.map(option => option.value)"
SHOWN = """types => types.map(type => {
    const node = window.LiteGraph.createNode(type)
    const inputs = node.inputs.map(input => [input.name, input.localized_name])
    const widgets = node.widgets?.map(widget => [widget.name, widget.label]) ?? []
    return {
        display_name: node.title,
        description: node.constructor.nodeData.description,
        category: node.constructor.category,
        inputs: Object.fromEntries([...inputs, ...widgets]),
        outputs: node.outputs.map(output => output.localized_name),
    }
})"""


def read(language: str, name: str) -> dict:
    return json.loads((LOCALES / language / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_server_serves_a_language(server, language):
    served = server.get("/i18n")[language]
    ours = {node: strings for node, strings in served["nodeDefs"].items() if node.startswith("EntropyGuidance")}
    assert ours == read(language, "nodeDefs.json")
    assert served["nodeCategories"].items() >= read(language, "main.json")["nodeCategories"].items()


@pytest.fixture(scope="module")
def chinese(server):
    with frontend(server.url, language="zh-CN") as page:
        yield page


@needs_browser
def test_every_language_of_the_frontend_is_there(chinese):
    offered = set(chinese.evaluate(OFFERED))
    assert offered and offered <= set(LANGUAGES)


@needs_browser
def test_nodes_are_named_and_described_in_chinese(chinese):
    (category,) = read("zh", "main.json")["nodeCategories"].values()
    nodes = read("zh", "nodeDefs.json")
    for (node, strings), shown in zip(nodes.items(), chinese.evaluate(SHOWN, list(nodes)), strict=True):
        assert shown["display_name"] == strings["display_name"]
        assert shown["description"] == strings["description"]
        assert shown["category"] == category
        for name, of_input in strings.get("inputs", {}).items():
            assert shown["inputs"][name] == of_input["name"], (node, name)
        for place, output in strings.get("outputs", {}).items():
            assert "name" not in output or shown["outputs"][int(place)] == output["name"], (node, place)


@needs_browser
def test_help_is_in_chinese(chinese, workflows):
    (path,) = [path for path in workflows if path.name.startswith("ERG at cfg 1")]
    open_workflow(chinese, json.loads(path.read_text()))
    title, picture = shown_help(chinese, "EntropyGuidanceERG")
    assert title == read("zh", "nodeDefs.json")["EntropyGuidanceERG"]["display_name"] and picture > 500
