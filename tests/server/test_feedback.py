"""What nodes say on themselves, as ComfyUI's server sends it to the client that asked for the pictures."""

import asyncio
import threading
import time

import aiohttp
import pytest
from graphs import classifier_guided, guided_away, node, papers_ddpm, text_to_image


def told(server, graph: dict) -> dict[str, list[str]]:
    result, texts = server.run_and_listen(graph)
    server.pictures(result)
    return texts


def sampled_twice(second_steps: int, **inputs) -> dict:
    """One ERG node in two samplings, the second of the first one's picture."""
    graph = text_to_image(**inputs)
    sampler = graph["sampler"]["inputs"]
    graph["second"] = node(
        "KSampler", **{**sampler, "latent_image": ["sampler", 0], "steps": second_steps, "denoise": 0.5}
    )
    graph["decoded"]["inputs"]["samples"] = ["second", 0]
    return graph


@pytest.mark.smoke
def test_erg_and_its_text_encoder(server):
    graph = text_to_image(seed=31)
    graph["clip"]["inputs"]["temperature"] = 0.31  # no other test's: the server would not run the node again
    assert told(server, graph) == {
        "erg": ["2 of 12 layers, 3 of 3 steps, 2.0 evaluations a step"],
        "clip": ["4 of 4 layers of clip_l"],
    }


@pytest.mark.smoke
def test_a_node_that_was_cached_says_it_of_the_next_sampling(server):
    graph = text_to_image(seed=32, steps=3)
    told(server, graph)
    graph["sampler"]["inputs"].update(seed=33, steps=4)
    result, texts = server.run_and_listen(graph)
    assert {"erg", "clip"} <= set(dict(result["status"]["messages"])["execution_cached"]["nodes"])
    assert texts == {"erg": ["2 of 12 layers, 4 of 4 steps, 2.0 evaluations a step"]}
    assert told(server, graph) == {}  # nothing was sampled


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (
            {"cfg": 1.0},
            "No effect: cfg is 1: there is no negative branch. Set scale above 0, or cfg above 1.",
        ),
        (
            {"start_percent": 0.6, "end_percent": 0.62},
            "No effect: no step lies between start_percent = 0.6 and end_percent",
        ),
        (
            {"start_percent": 0.6, "end_percent": 0.62, "outside": "no guidance"},
            "No guidance in all of the sampling: no step lies between start_percent = 0.6 and end_percent",
        ),
        ({"temperature": 1.0}, "No effect: temperature is 1. Set it below 1."),
        (
            {"temperature": 1.0, "start_percent": 0.5, "outside": "no guidance"},
            "No guidance outside of the window, and no ERG in it: temperature is 1. Set it below 1.",
        ),
        ({"flatness": 0.0}, "No effect: flatness is 0. Set it above 0, or to -1 for temperature to count."),
    ],
)
def test_erg_without_effect(server, inputs, text):
    (said,) = told(server, text_to_image(seed=34, **inputs))["erg"]
    assert said.startswith(text)


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"layers": "99"}, "Stopped: layers = '99' selects nothing: this model has 12 layers, numbered 0 to 11."),
        (
            {"layers": "all", "attention": "cross"},
            "Stopped: attention = 'cross': the selected layers of Flux have no cross",
        ),
    ],
)
def test_erg_that_stops_the_sampling_says_so_on_its_own_node(server, inputs, text):
    result, texts = server.run_and_listen(text_to_image(seed=35, **inputs))
    assert server.error(result)["node_id"] == "sampler"
    (said,) = texts["erg"]
    assert said.startswith(text)


@pytest.mark.parametrize("first", ["erg", "second"])
def test_of_two_nodes_the_one_at_fault_says_so(server, first):
    graph = text_to_image(seed=35, layers="99" if first == "erg" else "2")
    graph["second"] = node("EntropyGuidanceERG", **{**graph["erg"]["inputs"], "model": ["erg", 0]})
    graph["second"]["inputs"]["layers"] = "2" if first == "erg" else "99"
    graph["sampler"]["inputs"]["model"] = ["second", 0]
    _, texts = server.run_and_listen(graph)
    assert texts.keys() - {"clip"} == {first}


def test_two_nodes_on_one_model_each_say_their_part(server):
    graph = text_to_image(seed=36, layers="2")
    graph["second"] = node("EntropyGuidanceERG", **{**graph["erg"]["inputs"], "model": ["erg", 0], "layers": "4-8"})
    graph["second"]["inputs"]["end_percent"] = 0.5
    graph["sampler"]["inputs"].update(model=["second", 0], steps=4)
    texts = told(server, graph)
    assert texts["erg"] == ["1 of 12 layers, 4 of 4 steps, 2.0 evaluations a step"]
    assert texts["second"] == ["5 of 12 layers, 3 of 4 steps, 2.0 evaluations a step"]


def test_two_nodes_of_the_same_settings_each_say_it(server):
    """Neither is taken from ComfyUI's cache for the other."""
    graph = text_to_image(seed=37)
    graph["twin"] = node("EntropyGuidanceERG", **graph["erg"]["inputs"])
    graph["other"] = node("KSampler", **{**graph["sampler"]["inputs"], "model": ["twin", 0], "steps": 2})
    graph["other picture"] = node("VAEDecode", samples=["other", 0], vae=["demo", 2])
    graph["other saved"] = node("SaveImage", images=["other picture", 0], filename_prefix="test")
    texts = told(server, graph)
    assert texts["erg"] == ["2 of 12 layers, 3 of 3 steps, 2.0 evaluations a step"]
    assert texts["twin"] == ["2 of 12 layers, 2 of 2 steps, 2.0 evaluations a step"]


def test_a_node_in_two_samplers_says_it_of_each_the_last_one_last(server):
    assert told(server, sampled_twice(5, seed=38))["erg"] == [
        "2 of 12 layers, 3 of 3 steps, 2.0 evaluations a step",
        "2 of 12 layers, 5 of 5 steps, 2.0 evaluations a step",
    ]


@pytest.mark.smoke
def test_guider_and_annealed_conditions(server):
    texts = told(server, guided_away(steps=10, seed=39))
    assert texts == {
        "erg": ["2 of 12 layers, 10 of 10 steps, 3.0 evaluations a step"],
        "cads": ["noise on the positive prompt in 4 of 10 steps"],
        "guider": ["3 predictions a step: positive, weak, negative"],
    }


@pytest.mark.parametrize(
    ("changes", "name", "text"),
    [
        ({"cads": {"noise_scale": 0.0}}, "cads", "No effect: noise_scale is 0. Set it above 0."),
        ({"cads": {"tau1": 1.0, "tau2": 1.0}}, "cads", "No effect: tau1 is 1. Set it below 1."),
        ({"cads": {"apply_to": "both"}}, "cads", "noise on both prompts in 2 of 3 steps"),
        ({"cads": {"apply_to": "both, same noise"}}, "cads", "the same noise on both prompts in 2 of 3 steps"),
        ({"guider": {"scale": 1.0}}, "guider", "2 predictions a step: positive, negative"),
        ({"guider": {"scale": 1.0}, "negative": False}, "guider", "No effect: scale is 1. Set it above 1."),
        ({"guider": {"scale": 1.0}}, "erg", "No effect: no evaluation of it was one of a negative branch."),
    ],
)
def test_other_words_of_guider_and_cads(server, changes, name, text):
    (said,) = told(server, guided_away(seed=40, **changes))[name]
    assert said.startswith(text)


def test_a_sampling_without_a_step(server):
    """What SplitSigmas leaves of a schedule that another sampler draws in whole."""
    graph = guided_away(seed=42)
    graph["guidance"] = classifier_guided()["apply"]
    graph |= {name: classifier_guided()[name] for name in ("classifier", "score")}
    graph["guidance"]["inputs"].update(model=["cads", 0], vae=["demo", 2])
    graph["guider"]["inputs"]["model"] = ["guidance", 0]
    graph["split"] = node("SplitSigmas", sigmas=["sigmas", 0], step=0)
    graph["sampler"]["inputs"]["sigmas"] = ["split", 0]
    texts = told(server, graph)
    for name in ("erg", "cads", "guidance", "guider"):
        (said,) = texts[name]
        assert said.startswith("No effect: sigmas holds a single noise level, which is no step.")


def test_cads_where_a_sampling_begins_too_late(server):
    graph = text_to_image(seed=41)
    graph["cads"] = node("EntropyGuidanceCADS", model=["erg", 0], noise_scale=0.5, mixing=1.0, tau1=0.6, tau2=0.9,
                         apply_to="positive", seed=0)  # fmt: skip
    graph["sampler"]["inputs"].update(model=["cads", 0], denoise=0.5)
    (said,) = told(server, graph)["cads"]
    assert said.startswith("No effect: no step is as early as tau1 = 0.6 asks for.")


@pytest.mark.smoke
def test_a_classifier(server):
    (one,) = told(server, classifier_guided(guidance={"every": 2}, steps=5))["apply"]
    assert one.startswith("3 of 5 steps, classifier ") and one.endswith(" % sure of 'blue' in the last of them")
    (windowed,) = told(server, classifier_guided(guidance={"start_percent": 0.3, "every": 4}))["apply"]
    assert windowed.startswith("1 of 3 steps, classifier ")  # of the two that the window holds
    (several,) = told(server, classifier_guided(score={"labels": "blue, red"}, batch=2))["apply"]
    assert " % sure of the wanted classes (" in several and several.endswith(" %) in the last of them")


@pytest.mark.parametrize(
    ("guidance", "text"),
    [
        ({"scale": 0.0}, "No effect: scale is 0. Set it above 0."),
        (
            {"start_percent": 0.6, "end_percent": 0.62},
            "No effect: no step lies between start_percent = 0.6 and end_percent",
        ),
    ],
)
def test_a_classifier_without_effect(server, guidance, text):
    (said,) = told(server, classifier_guided(guidance=guidance))["apply"]
    assert said.startswith(text)


def test_a_classifier_that_stops_the_sampling(server):
    result, texts = server.run_and_listen(classifier_guided(score={"labels": "red, blue"}, batch=3))
    assert server.error(result)["node_id"] == "sampler"
    (said,) = texts["apply"]
    assert said.startswith("Stopped: ") and "2 classes for a batch of 3 images" in said


def test_a_classifier_that_stops_the_papers_sampler(server):
    graph = papers_ddpm(score={"labels": "red circle, blue circle"})
    graph["class"]["inputs"]["labels"] = "red circle"
    graph["latent"]["inputs"]["batch_size"] = 3
    result, texts = server.run_and_listen(graph)
    (said,) = texts["ddpm"]
    assert said.startswith("Stopped: ") and "2 classes for a batch of 3 images" in said


@pytest.mark.smoke
def test_the_papers_sampler(server):
    (said,) = told(server, papers_ddpm())["ddpm"]
    assert said.startswith("4 steps, classifier ") and " % sure of the wanted classes (" in said
    assert told(server, papers_ddpm(sampler={"scale": 0.0}))["ddpm"] == ["No effect: scale is 0. Set it above 0."]


def test_an_interrupted_sampling_says_nothing_and_the_next_one_its_own(server):
    def interrupt():
        while not server.get("/queue")["queue_running"]:  # one that is still waiting would not notice
            time.sleep(0.1)
        time.sleep(3)
        server.post("/interrupt", {})

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    result, texts = server.run_and_listen(text_to_image(steps=5000, seed=42))
    interrupting.join()
    assert "execution_interrupted" in dict(result["status"]["messages"]) and "erg" not in texts
    assert told(server, text_to_image(steps=2, seed=42))["erg"] == [
        "2 of 12 layers, 2 of 2 steps, 2.0 evaluations a step"
    ]


def test_other_clients_are_told_nothing(server):
    """Their graphs have nodes of the same numbers."""

    kinds = []

    async def listen() -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{server.url}/ws?clientId=other") as messages,
        ):
            await asyncio.to_thread(server.run, text_to_image(seed=43))
            of_no_client = server.post("/prompt", {"prompt": text_to_image(seed=44)}).json()["prompt_id"]
            await asyncio.to_thread(server.wait, of_no_client)
            while True:
                kinds.append((await messages.receive(timeout=2)).type)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(listen())
    assert set(kinds) == {aiohttp.WSMsgType.TEXT}  # of the queue alone
