"""Some of these graphs over HTTP, as a frontend sends them: a server checks, queues and runs them, says what came of each, and
goes on."""

import json
import math

import pytest
import requests
from client import Client
from graphs import class_conditional, text_to_image

from benchmarks import in_process
from tools.comfyui_server import running_server
from tools.environment import REPOSITORY

GRAPHS = 24
FEWEST = 4  # that have to draw something, and as many that have to be refused or stopped


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzzing")
    paths = folder / "paths.yaml"
    paths.write_text(f"fuzzing:\n    custom_nodes: {REPOSITORY / 'benchmarks' / 'fuzzing' / 'custom_nodes'}\n")
    options = [f"--{name}-directory={folder}" for name in ("input", "output", "temp", "user")] + ["--cache-classic"]
    with running_server(folder / "server.log", *options, f"--extra-model-paths-config={paths}") as port:
        yield Client(port)


@pytest.fixture(scope="module")
def graphs():
    in_process.load_nodes()
    from benchmarks.fuzzing.wiring import graph_of

    return [graph_of(number, quick=True) for number in range(GRAPHS)]


def outcome_of(client, graph):
    from benchmarks.fuzzing.outcome import judge

    # With NaN, infinity and half characters, as scripts send them.
    prompt = json.dumps({"prompt": graph, "client_id": "tests"})
    response = requests.post(f"{client.url}/prompt", prompt, headers={"Content-Type": "application/json"}, timeout=30)
    answer = response.json()
    if not response.ok:
        return judge(graph, False, answer["error"], answer["node_errors"], {}, {})
    result = client.wait(answer["prompt_id"])
    finite = [found for output in result["outputs"].values() for found in output.get("finite", ())]
    return judge(
        graph, True, None, {}, dict(result["status"]["messages"]), [0.0 if one else math.nan for one in finite]
    )


def plain_pictures(client) -> list[bytes]:
    """Of both bundled models, without a node of the pack but their loaders."""
    plain = (text_to_image(erg=False, steps=2), class_conditional(erg=False, steps=2))
    return [picture for graph in plain for picture in client.pictures(client.run(graph))]


def test_each_draws_or_says_why_not_and_leaves_the_server_as_it_was(client, graphs):
    before = plain_pictures(client)
    outcomes = [outcome_of(client, graph) for graph in graphs]
    kinds = [outcome.kind for outcome in outcomes]
    failed = [(number, outcome.why) for number, outcome in enumerate(outcomes) if outcome.kind == "failed"]
    assert not failed, failed[:3]
    assert kinds.count("finished") >= FEWEST and len(kinds) - kinds.count("finished") >= FEWEST
    assert not client.get("/queue")["queue_pending"]
    # ComfyUI's cache keeps results of the last prompt alone here.
    assert plain_pictures(client) == before
