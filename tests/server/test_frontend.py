"""The example workflows in ComfyUI's own frontend, in a headless Chromium."""

import json

import pytest
from browser import needs_browser
from help_panel import shown_help

from tools.browser import frontend

SET_STEPS = """steps => window.app.graph.nodes.filter(node => node.type === 'KSampler')
    .forEach(node => { node.widgets.find(widget => widget.name === 'steps').value = steps })"""
SAVED_ERG = "() => window.app.graph.serialize().nodes.find(node => node.type === 'EntropyGuidanceERG')"

pytestmark = needs_browser


@pytest.fixture(scope="module")
def page(server):
    with frontend(server.url) as page:
        yield page


def open_workflow(page, workflow: dict) -> dict:
    """Opens a workflow as the artist does; returns what the editor's graph holds."""
    page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
    return page.evaluate(
        """() => ({
            types: window.app.graph.nodes.map(node => node.type),
            missing: window.app.graph.nodes.filter(node => !(node.type in LiteGraph.registered_node_types)
                                                   && node.type !== 'MarkdownNote').map(node => node.type),
        })"""
    )


def test_example_workflows_open_without_a_missing_node(page, workflows):
    assert len(workflows) >= 2
    for path in workflows:
        workflow = json.loads(path.read_text())
        opened = open_workflow(page, workflow)
        expected = [node["type"] for node in workflow["nodes"]]
        assert sorted(opened["types"]) == sorted(expected), path.name
        assert not opened["missing"], path.name
        assert path.with_suffix(".jpg").exists(), f"{path.name} has no thumbnail"


def test_templates_browser_offers_the_workflows(server, workflows):
    pack = "ComfyUI-Entropy-Guidance"
    assert sorted(server.get("/api/workflow_templates")[pack]) == [path.stem for path in workflows]
    for path in workflows:
        assert server.get(f"/api/workflow_templates/{pack}/{path.name}")["nodes"]
        server.get_text(f"/api/workflow_templates/{pack}/{path.stem}.jpg")


@pytest.mark.parametrize(
    ("name", "pictures"), [("ERG beside CFG", 8), ("Classifier guidance", 16), ("Record and plot", 10)]
)
def test_the_demo_workflows_run_from_the_frontend(page, server, workflows, name, pictures):
    (path,) = [path for path in workflows if path.name == f"{name} (demo model).json"]
    assert len(set(run(page, server, json.loads(path.read_text())))) == pictures


def test_the_checkpoint_workflow_runs_from_the_frontend(page, server, workflows):
    """With the demo model in the place of a checkpoint of gigabytes: its loader has the same outputs."""
    (path,) = [path for path in workflows if "checkpoint" in path.name]
    workflow = json.loads(path.read_text())
    for node in workflow["nodes"]:
        if node["type"] == "CheckpointLoaderSimple":
            node.update(type="EntropyGuidanceLoadDemo", widgets_values=[], properties={})
        if node["type"] == "EmptyLatentImage":
            node["widgets_values"][:2] = [128, 128]
    assert run(page, server, workflow)


@pytest.mark.parametrize(
    ("name", "pictures"), [("Class-conditional ERG", 18), ("papers' DDPM", 18), ("ImageNet 128", 4)]
)
def test_the_class_conditional_workflows_run_from_the_frontend(page, server, workflows, name, pictures):
    """In few steps; the one for ImageNet with the demo's model and classifier in the place of the published ones."""
    (path,) = [path for path in workflows if name in path.name]
    workflow = json.loads(path.read_text())
    for node in workflow["nodes"]:
        values = node["widgets_values"]
        if node["type"] == "BasicScheduler":
            values[1] = 5
        if name == "ImageNet 128" and node["type"] in ("EntropyGuidanceLoadADM", "EntropyGuidanceLoadClassifier"):
            values[0] = "entropy-guidance-demo-classes"
        if name == "ImageNet 128" and node["type"] == "PrimitiveStringMultiline":
            values[0] = "red circle"
    assert len(set(run(page, server, workflow))) == pictures


def test_the_calibration_workflow_runs_from_the_frontend(page, server, workflows):
    """On finished pictures alone and for few steps: half-finished ones take a CPU minutes."""
    (path,) = [path for path in workflows if "Calibrated" in path.name]
    workflow = json.loads(path.read_text())
    for node in workflow["nodes"]:
        if node["type"].startswith("EntropyGuidanceCalibrat"):
            values = node["widgets_values"]
            assert values.count("0.25, 0.5") == 1
            values[values.index("0.25, 0.5")] = ""
            if node["type"] == "EntropyGuidanceCalibrate":
                values[1] = 2
        if node["type"] == "KSampler":
            node["widgets_values"][2] = 2
    assert len(run(page, server, workflow)) == 3 + 2 * 4  # diagrams, and both classifiers' pictures


def run(page, server, workflow: dict) -> list[bytes]:
    """The pictures that a workflow saves when the artist presses Run."""
    open_workflow(page, workflow)
    return server.pictures(server.wait(queue(page, server)))


def queue(page, server) -> str:
    """The id of the finished prompt of the graph in the editor."""
    before = set(server.get("/history"))
    page.evaluate("() => window.app.queuePrompt(0, 1)")
    prompt_id = None
    while prompt_id is None:
        page.wait_for_timeout(300)
        queue = server.get("/queue")
        assert queue["queue_running"] or queue["queue_pending"] or set(server.get("/history")) - before
        prompt_id = next(iter(set(server.get("/history")) - before), None)
    return prompt_id


def test_a_node_shows_what_it_did_also_where_it_was_cached(page, server, workflows):
    (path,) = [path for path in workflows if path.name == "ERG at cfg 1 (demo model).json"]
    open_workflow(page, json.loads(path.read_text()))
    saved = page.evaluate(SAVED_ERG)
    for steps in (4, 3):
        page.evaluate(SET_STEPS, steps)
        messages = dict(server.wait(queue(page, server))["status"]["messages"])
        said = page.get_by_text(f"1 of 12 layers, {steps} of {steps} steps, 1.")
        said.wait_for(timeout=30_000)  # and visible
    assert str(saved["id"]) in messages["execution_cached"]["nodes"]
    assert page.evaluate(SAVED_ERG)["widgets_values"] == saved["widgets_values"]


WIDGETS_OF_0_1 = {"EntropyGuidanceERG": 8, "EntropyGuidanceCLIP": 2}


def test_workflows_of_before_mean_the_same(page, workflows):
    """Shared workflows have the values of the inputs that there were, in their order: new inputs take their defaults."""
    (path,) = [path for path in workflows if path.name == "ERG beside CFG (demo model).json"]
    workflow = json.loads(path.read_text())
    prompts = []
    for _ in range(2):
        open_workflow(page, workflow)
        prompts.append(page.evaluate("async () => (await window.app.graphToPrompt()).output"))
        for node in workflow["nodes"]:
            del node["widgets_values"][WIDGETS_OF_0_1.get(node["type"], len(node["widgets_values"])) :]
    assert prompts[0] == prompts[1]


def test_example_workflows_survive_saving_and_opening(page, workflows):
    """What the frontend saves is what it opened: ids, inputs and values of our nodes."""
    for path in workflows:
        workflow = json.loads(path.read_text())
        open_workflow(page, workflow)
        saved = page.evaluate("() => window.app.graph.serialize()")
        ours = {
            n["id"]: (n["type"], n.get("widgets_values")) for n in saved["nodes"] if n["type"].startswith("Entropy")
        }
        original = workflow["nodes"]
        assert ours == {
            n["id"]: (n["type"], n["widgets_values"] or ours[n["id"]][1])
            for n in original
            if n["type"].startswith("Entropy")
        }


def test_help_is_shown_in_english(page):
    title, picture = shown_help(page, "EntropyGuidanceERG")
    assert title == "Entropy Rectifying Guidance (ERG)" and picture > 100


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
