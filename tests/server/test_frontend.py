"""The example workflows in ComfyUI's own frontend, in a headless Chromium."""

import base64
import io
import json
from pathlib import Path

import numpy
import pytest
from browser import needs_browser
from help_panel import shown_help
from PIL import Image

from tools.frontend import STORE, frontend, open_workflow, run_workflow

OF_0_1 = Path(__file__).parent / "workflows_of_0_1"
LABEL, GAP = 36, 4  # pixels of a labelled row of pictures, and between pictures
SPEAKING = ("ERG", "CLIP", "Guider", "CADS", "Apply", "DDPMSampler")  # these grow by what they say after a sampling
ROOM_TO_SPEAK = 60

SET_STEPS = """steps => window.app.graph.nodes.filter(node => node.type === 'KSampler')
    .forEach(node => { node.widgets.find(widget => widget.name === 'steps').value = steps })"""
SAVED_ERG = "() => window.app.graph.serialize().nodes.find(node => node.type === 'EntropyGuidanceERG')"
PROMPT = "async () => (await window.app.graphToPrompt()).output"
BOXES = "() => window.app.graph.nodes.map(node => [node.title, node.type, ...node.boundingRect])"
GRAPH = "() => window.app.graph.serialize()"
DROP = """async encoded => {
    const bytes = Uint8Array.from(atob(encoded), character => character.charCodeAt(0));
    await window.app.handleFile(new File([bytes], 'picture.png', { type: 'image/png' }));
}"""
SEARCH = (
    f"""words => {STORE}('nodeDef').nodeSearchService.searchNode(words, [], {{ limit: 20 }}).map(node => node.name)"""
)
FAULTY = f"() => String({STORE}('executionError').lastExecutionErrorNodeId)"
CONNECT = """([output, input]) => {
    const [from, to] = ['EntropyGuidanceLoadDemo', 'EntropyGuidanceERG'].map(type => LiteGraph.createNode(type));
    for (const node of [from, to]) window.app.graph.add(node);
    return Boolean(from.connect(output, to, input));
}"""
OPENED = """() => ({
    types: window.app.graph.nodes.map(node => node.type),
    missing: window.app.graph.nodes.filter(node => !(node.type in LiteGraph.registered_node_types)
                                           && node.type !== 'MarkdownNote').map(node => node.type),
})"""

pytestmark = needs_browser


@pytest.fixture(scope="module")
def page(server):
    with frontend(server.url) as page:
        yield page


def named(workflows, name: str) -> dict:
    """The one workflow whose file begins with a name."""
    (path,) = [path for path in workflows if path.name.startswith(name)]
    return json.loads(path.read_text())


def test_example_workflows_open_whole_and_survive_saving(page, workflows):
    """Without a missing node, none on another, and what the frontend saves is what it opened. Opening takes seconds."""
    for path in workflows:
        workflow = json.loads(path.read_text())
        open_workflow(page, workflow)
        opened = page.evaluate(OPENED)
        expected = [node["type"] for node in workflow["nodes"]]
        assert sorted(opened["types"]) == sorted(expected), path.name
        assert not opened["missing"], path.name
        assert path.with_suffix(".jpg").exists(), f"{path.name} has no thumbnail"
        assert not covered(page.evaluate(BOXES)), path.name
        saved = {node["id"]: node for node in page.evaluate(GRAPH)["nodes"]}
        for node in workflow["nodes"]:
            if node["type"].startswith("EntropyGuidance"):
                assert saved[node["id"]]["type"] == node["type"], path.name
                assert saved[node["id"]].get("widgets_values") == node["widgets_values"] or not node["widgets_values"]


def covered(boxes: list) -> list[tuple[str, str]]:
    """The nodes of which one lies on the other, or where the upper one will speak."""
    pairs = []
    for title, kind, x, y, width, height in boxes:
        speaks = kind.removeprefix("EntropyGuidance") in SPEAKING
        bottom = y + height + (ROOM_TO_SPEAK if speaks else 0)
        pairs += [
            (title, other)
            for other, _, left, top, wide, _ in boxes
            if (left, top, other) != (x, y, title) and y <= top < bottom and left < x + width and x < left + wide
        ]
    return pairs


def test_templates_browser_offers_the_workflows(server, workflows):
    pack = "ComfyUI-Entropy-Guidance"
    assert sorted(server.get("/api/workflow_templates")[pack]) == [path.stem for path in workflows]
    for path in workflows:
        assert server.get(f"/api/workflow_templates/{pack}/{path.name}")["nodes"]
        server.get_text(f"/api/workflow_templates/{pack}/{path.stem}.jpg")


@pytest.mark.parametrize(
    ("name", "rows", "different"),
    [
        ("A first look at ERG", 4, 16),
        ("C-ERG alone", 3, 9),  # in two steps CFG has drawn the background alone
        ("CADS beside plain sampling", 2, 5),  # without CADS the same noise gives one picture
        ("Classifier guidance (demo", 4, 16),
        ("ERG and CADS", 2, 5),
        ("ERG at cfg 1", 2, 8),
        ("ERG beside CFG", 2, 8),
        ("ERG with a negative prompt", 2, 8),
        ("ERG without a prompt", 3, 8),  # CFG has nothing to compare
        ("Flatness in three choices", 6, 24),
        ("Tilted batch", 3, 12),
    ],
)
def test_the_comparisons_run_from_the_frontend_to_one_picture(page, server, workflows, name, rows, different):
    """In two steps, in which the rows differ already. Dragged in, the picture brings its graph back."""
    (sheet,) = run(page, server, in_few_steps(named(workflows, name), 2))
    assert len(set(cells(sheet, 4, rows, 160))) >= different
    shown = meaning(page.evaluate(GRAPH))
    assert meaning(json.loads(Image.open(io.BytesIO(sheet)).info["workflow"])) == shown
    open_workflow(page, {"nodes": [], "links": [], "version": 0.4})
    page.evaluate(DROP, base64.b64encode(sheet).decode())
    assert meaning(page.evaluate(GRAPH)) == shown


def meaning(graph: dict) -> tuple[list, list]:
    """Of a saved graph: not the sizes of nodes, which grow by what they say."""
    keys = ("id", "type", "title", "pos", "mode", "widgets_values")
    return [[node.get(key) for key in keys] for node in graph["nodes"]], graph["links"]


def in_few_steps(workflow: dict, steps: int) -> dict:
    for node in workflow["nodes"]:
        place = {"KSampler": 2, "BasicScheduler": 1}.get(node["type"])
        if place is not None:
            node["widgets_values"][place] = steps
    return workflow


def cells(sheet: bytes, columns: int, rows: int, side: int) -> list[bytes]:
    """The pictures of a labelled sheet."""
    picture = Image.open(io.BytesIO(sheet))
    across, down = side + GAP, LABEL + side + GAP
    assert picture.size == (columns * across - GAP, rows * down - GAP)
    corners = [(column * across, LABEL + row * down) for row in range(rows) for column in range(columns)]
    return [picture.crop((x, y, x + side, y + side)).tobytes() for x, y in corners]


def test_the_recorded_workflow_runs_from_the_frontend(page, server, workflows):
    assert len(set(run(page, server, in_few_steps(named(workflows, "Record and plot"), 8)))) == 10


def test_the_checkpoint_workflow_runs_from_the_frontend(page, server, workflows):
    workflow = in_few_steps(named(workflows, "ERG with your checkpoint"), 2)
    assert run(page, server, with_demo_model(workflow))


@pytest.mark.parametrize("name", ["Class-conditional ERG", "Classifier guidance, the papers' DDPM"])
def test_the_class_conditional_workflows_run_from_the_frontend(page, server, workflows, name):
    (sheet,) = run(page, server, in_few_steps(named(workflows, name), 5))
    assert len(set(cells(sheet, 6, 3, 192))) == 18


def test_the_workflow_for_imagenet_runs_from_the_frontend(page, server, workflows):
    """With the demo's model and classifier in the place of the published ones."""
    workflow = in_few_steps(named(workflows, "ImageNet 128"), 5)
    for node in workflow["nodes"]:
        if node["type"] in ("EntropyGuidanceLoadADM", "EntropyGuidanceLoadClassifier"):
            node["widgets_values"][0] = "entropy-guidance-demo-classes"
        if node["type"] == "PrimitiveStringMultiline":
            node["widgets_values"][0] = "red circle"
    assert len(set(run(page, server, workflow))) == 4


def test_the_calibration_workflow_runs_from_the_frontend(page, server, workflows):
    """On finished pictures alone and for few steps: half-finished ones take a CPU minutes."""
    workflow = in_few_steps(named(workflows, "Calibrated"), 2)
    for node in workflow["nodes"]:
        if node["type"].startswith("EntropyGuidanceCalibrat"):
            values = node["widgets_values"]
            assert values.count("0.25, 0.5") == 1
            values[values.index("0.25, 0.5")] = ""
            if node["type"] == "EntropyGuidanceCalibrate":
                values[1] = 2
    pictures = run(page, server, workflow)
    (sheet,) = [picture for picture in pictures if Image.open(io.BytesIO(picture)).width == 4 * (160 + GAP) - GAP]
    assert len(pictures) == 3 + 1  # diagrams, and both classifiers' pictures
    assert len(set(cells(sheet, 4, 2, 160))) >= 4  # so few steps may leave the classifier as it was


def run(page, server, workflow: dict) -> list[bytes]:
    """The pictures that a workflow saves when the artist presses Run."""
    open_workflow(page, workflow)
    return server.pictures(run_workflow(page))


@pytest.mark.parametrize("path", sorted(OF_0_1.glob("*.json")), ids=lambda path: path.stem)
def test_workflows_of_version_0_1_draw_what_they_drew(page, server, path):
    """The pictures beside them are those of its code, but for the classifier's: `every` guides in other steps since. Calibration
    is run in another test; here its values count."""
    workflow = of_one_picture(with_demo_model(in_few_steps(json.loads(path.read_text()), 4)))
    if not path.with_suffix(".png").exists():
        open_workflow(page, workflow)
        prompt = page.evaluate(PROMPT)
        for node in workflow["nodes"]:
            if node["type"].startswith("EntropyGuidance") and str(node["id"]) in prompt:  # what is muted is not run
                kept = [*prompt[str(node["id"])]["inputs"].values()]
                assert all(value in kept for value in node["widgets_values"] if value not in ("", "fixed")), node[
                    "type"
                ]
        return
    drawn = [numpy.asarray(Image.open(io.BytesIO(picture)), dtype=float) for picture in run(page, server, workflow)]
    expected = numpy.asarray(Image.open(path.with_suffix(".png")), dtype=float)
    # Rounding elsewhere moves some values by a level of the 256; another picture moves their mean by more.
    assert abs(numpy.concatenate(drawn, axis=1) - expected).mean() < 1


def with_demo_model(workflow: dict) -> dict:
    """In the place of a checkpoint of gigabytes: its loader has the same outputs, and flow suits it."""
    for node in workflow["nodes"]:
        if node["type"] == "CheckpointLoaderSimple":
            node.update(type="EntropyGuidanceLoadDemo", widgets_values=[], properties={})
        if node["type"] == "EmptyLatentImage":
            node["widgets_values"][:2] = [128, 128]
        if node["type"] == "KSampler":
            node["widgets_values"][4:6] = ["euler", "simple"]
    return workflow


def of_one_picture(workflow: dict) -> dict:
    for node in workflow["nodes"]:
        if node["type"] == "EmptyLatentImage":
            node["widgets_values"][2] = 1
    return workflow


def test_workflows_for_published_models_lack_nothing_but_the_weights(page, server, workflows):
    """ComfyUI's own validation of what the editor sends; the weights are not here, so nothing can be drawn."""
    folders = server.get("/api/models")
    checked = 0
    for path in workflows:
        workflow = json.loads(path.read_text())
        loaders = {str(node["id"]): node for node in workflow["nodes"] if node["properties"].get("models")}
        for node in loaders.values():
            files = {model["name"] for model in node["properties"]["models"]}
            assert files <= {*node["widgets_values"]}, f"{path.name}: the offered downloads of {node['type']}"
            assert all(model["directory"] in folders for model in node["properties"]["models"])
            node["widgets_values"] = [f"nowhere/{v}" if v in files else v for v in node["widgets_values"]]
        if loaders:
            open_workflow(page, workflow)
            answer = server.post("/prompt", {"prompt": page.evaluate(PROMPT)})
            faults = answer.json()["node_errors"]
            assert answer.status_code == 400 and set(faults) == set(loaders), f"{path.name}: {faults}"
            kinds = {error["type"] for node in faults.values() for error in node["errors"]}
            assert kinds == {"value_not_in_list"}, f"{path.name}: {faults}"
            checked += 1
    assert checked == 8


BLUEPRINTS = {
    "ERG text to image": {"width": 128, "height": 128, "steps": 2},
    "ERG beside CFG": {"steps": 2},
    "Classifier-guided sampling": {"labels": "blue", "every": 1, "steps": 2},
}
INSERT = """([name, prompt, values]) => {
    const { graph, canvas } = window.app;
    const add = (type, values = []) => {
        const node = LiteGraph.createNode(type);
        graph.add(node);
        values.forEach((value, place) => { node.widgets[place].value = value });
        return node;
    };
    const demo = add('EntropyGuidanceLoadDemo'), text = add('CLIPTextEncode', [prompt]);
    const latent = add('EmptyLatentImage', [128, 128, 1]), decode = add('VAEDecode'), save = add('SaveImage');
    demo.connect('CLIP', text, 'clip');
    demo.connect('VAE', decode, 'vae');
    const store = STORE('subgraph');
    const blueprint = store.subgraphBlueprints.find(entry => entry.display_name === name);
    const { nodes, definitions } = store.getBlueprint(blueprint.name);
    canvas._deserializeItems({ nodes, subgraphs: definitions.subgraphs }, { position: [600, 0] });
    const inserted = graph.nodes.find(node => node.isSubgraphNode());
    const wires = { model: [demo, 'MODEL'], clip: [demo, 'CLIP'], vae: [demo, 'VAE'], latent_image: [latent, 'LATENT'],
                    positive: [text, 'CONDITIONING'], negative: [text, 'CONDITIONING'] };
    for (const input of inserted.inputs) if (wires[input.name]) wires[input.name][0].connect(wires[input.name][1], inserted, input.name);
    for (const [widget, value] of Object.entries({ ...values, text: prompt }))
        for (const found of inserted.widgets.filter(w => w.name === widget)) found.value = value;
    if (inserted.outputs[0].type === 'LATENT') { inserted.connect(0, decode, 'samples'); decode.connect(0, save, 'images') }
    else { inserted.connect(0, save, 'images'); graph.remove(decode) }
}""".replace("STORE", STORE)


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_blueprints_are_served_and_draw(page, server, name):
    entries = [
        entry for entry in server.get("/api/global_subgraphs").values() if "Entropy" in entry["info"]["node_pack"]
    ]
    assert sorted(entry["name"] for entry in entries) == sorted(BLUEPRINTS)
    open_workflow(page, {"nodes": [], "links": [], "version": 0.4})
    page.evaluate(INSERT, [name, "a red circle left of a blue square on a white background", BLUEPRINTS[name]])
    (picture,) = server.pictures(run_workflow(page))
    drawn = Image.open(io.BytesIO(picture))
    assert drawn.height == 128 and len(drawn.getcolors(1 << 16)) > 100


def test_a_node_shows_what_it_did_also_where_it_was_cached(page, server, workflows):
    open_workflow(page, named(workflows, "ERG at cfg 1"))
    saved = page.evaluate(SAVED_ERG)
    for steps in (4, 3):
        page.evaluate(SET_STEPS, steps)
        messages = dict(run_workflow(page)["status"]["messages"])
        said = page.get_by_text(f"1 of 12 layers, {steps} of {steps} steps, 1.")
        said.wait_for(timeout=30_000)  # and visible
    assert str(saved["id"]) in messages["execution_cached"]["nodes"]
    assert page.evaluate(SAVED_ERG)["widgets_values"] == saved["widgets_values"]


def test_the_nodes_are_in_the_menu_with_their_names(page):
    titles = page.evaluate(
        "() => Object.values(LiteGraph.registered_node_types).filter(t => t.category === 'entropy guidance').map(t => t.title)"
    )
    assert set(titles) >= {
        "Entropy Rectifying Guidance (ERG)", "ERG Text Encoder (C-ERG)", "Load Guidance Classifier", "Guidance Score",
        "Apply Classifier Guidance", "Guided DDPM Sampler", "Load Demo Model", "Calibrate Classifier",
        "Calibration Report", "Save Guidance Classifier", "Load ADM (guided-diffusion)", "Load DiT / SiT", "Class Condition",
        "Record Guidance", "Plot Guidance",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "node"),
    [
        ("ERG", "ERG"), ("entropy", "ERG"), ("CFG alternative", "ERG"), ("cfg 1", "ERG"), ("diversity", "CADS"),
        ("classifier", "Apply"), ("guidance", "ERG"),
    ],
)  # fmt: skip
def test_the_search_of_nodes_finds_ours(page, words, node):
    assert f"EntropyGuidance{node}" in page.evaluate(SEARCH, words)


def test_a_wire_of_another_type_is_refused(page):
    open_workflow(page, {"nodes": [], "links": [], "version": 0.4})
    assert page.evaluate(CONNECT, ["MODEL", "model"])
    assert not page.evaluate(CONNECT, ["CLIP", "model"])


def with_layers(workflow: dict, layers: str) -> tuple[dict, str]:
    """The workflow, and the id of its ERG node."""
    (erg,) = [node for node in workflow["nodes"] if node["type"] == "EntropyGuidanceERG"]
    erg["widgets_values"][erg["widgets_values"].index("40%-50%")] = layers
    return workflow, str(erg["id"])


def test_an_error_shows_on_the_node_that_it_is_of(page, workflows):
    workflow, erg = with_layers(named(workflows, "ERG at cfg 1"), "the best")
    open_workflow(page, workflow)
    assert run_workflow(page)["status"]["status_str"] == "error"
    page.wait_for_function(f"id => ({FAULTY})() === id", arg=erg, timeout=30_000)


def test_what_only_a_sampling_finds_out_is_said_on_the_node_too(page, workflows):
    """ComfyUI shows such an error on the sampler."""
    workflow, _ = with_layers(in_few_steps(named(workflows, "ERG at cfg 1"), 2), "99")
    open_workflow(page, workflow)
    assert run_workflow(page)["status"]["status_str"] == "error"
    page.get_by_text("Stopped: layers = '99' selects nothing").wait_for(timeout=30_000)  # and visible


def test_the_help_of_a_node_shows_title_and_picture(page, workflows):
    open_workflow(page, named(workflows, "ERG at cfg 1"))
    title, picture = shown_help(page, "EntropyGuidanceERG")
    assert title == "Entropy Rectifying Guidance (ERG)" and picture > 500
