"""The pack behind ComfyUI's HTTP API, as every graph editor sees it."""

import io
import re
import time

import pytest
from graphs import (
    calibrated,
    class_conditional,
    classifier_guided,
    guided_away,
    node,
    papers_ddpm,
    recorded,
    text_to_image,
)
from help_page import assert_default, inputs
from PIL import Image

NODES = (
    "EntropyGuidanceERG", "EntropyGuidanceCLIP", "EntropyGuidanceGuider", "EntropyGuidanceCADS",
    "EntropyGuidanceLoadClassifier", "EntropyGuidanceScore",
    "EntropyGuidanceApply", "EntropyGuidanceDDPMSampler", "EntropyGuidanceLoadDemo",
    "EntropyGuidanceLoadADM", "EntropyGuidanceLoadDiT", "EntropyGuidanceClassCondition",
    "EntropyGuidanceCalibrate", "EntropyGuidanceCalibrationReport", "EntropyGuidanceSaveClassifier",
    "EntropyGuidanceRecord", "EntropyGuidancePlot",
)  # fmt: skip


def pixels(picture: bytes) -> bytes:
    return Image.open(io.BytesIO(picture)).tobytes()


@pytest.fixture(scope="module")
def plain(server):
    """The picture of the stock graph, from before anything else."""
    (picture,) = server.pictures(server.run(text_to_image(erg=False)))
    return pixels(picture)


@pytest.mark.smoke
@pytest.mark.parametrize("name", NODES)
def test_nodes_explain_themselves(server, name):
    info = server.get(f"/object_info/{name}")[name]
    assert info["category"] == "entropy guidance"
    assert info["description"]
    for kind in ("required", "optional"):
        for input_name, (_, *options) in info["input"].get(kind, {}).items():
            assert options and options[0].get("tooltip"), f"{name}.{input_name} has no tooltip"
    assert all(info["output_tooltips"])
    help_page = server.get_text(f"/extensions/ComfyUI-Entropy-Guidance/docs/{name}.md")
    assert help_page.startswith("# ")
    schema = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    explained = inputs(help_page)
    assert explained.keys() == schema.keys()
    for input_name, default in explained.items():
        assert_default(default, schema[input_name][1])


@pytest.mark.smoke
def test_draws_a_picture(server, plain):
    (picture,) = server.pictures(server.run(text_to_image()))
    assert Image.open(io.BytesIO(picture)).size == (128, 128)
    assert pixels(picture) != plain


@pytest.mark.smoke
def test_neutral_nodes_draw_the_same_picture(server):
    neutral = {"temperature": 1.0, "clip_temperature": 1.0}
    ordinary = text_to_image()
    ordinary["sampler"]["inputs"]["model"] = ["demo", 0]
    ordinary["negative"]["inputs"]["clip"] = ["demo", 1]
    graphs = [text_to_image(**neutral), ordinary]
    a, b = (server.pictures(server.run(graph))[0] for graph in graphs)
    assert pixels(a) == pixels(b)


@pytest.mark.smoke
def test_a_branch_of_its_own_at_any_cfg(server):
    """Each input makes a picture of its own, at cfg 1 and above."""
    own = {"scale": 0.8}
    changes = [
        {},
        own,
        {**own, "rescale": 0.7},
        {**own, "end_percent": 0.4},
        {**own, "end_percent": 0.4, "outside": "no guidance"},
    ]
    drawn = [
        pixels(server.pictures(server.run(text_to_image(**change, cfg=cfg)))[0])
        for cfg in (1.0, 2.0) for change in changes
    ]  # fmt: skip
    assert drawn[3] == drawn[4]  # at cfg 1 there is no guidance but ERG's
    assert len(set(drawn)) == len(drawn) - 1


def test_two_queued_prompts_keep_to_their_own_settings(server, plain):
    settings = [{"temperature": 0.01, "layers": "all"}, {"temperature": 0.5, "layers": "2"}]
    alone = [pixels(server.pictures(server.run(text_to_image(**s, seed=5)))[0]) for s in settings]
    queued = [server.queue(text_to_image(**s, seed=5, steps=4)) for s in settings]
    queued += [server.queue(text_to_image(**s, seed=5)) for s in reversed(settings)]
    results = [server.wait(prompt_id) for prompt_id in queued]
    assert all(result["status"]["status_str"] == "success" for result in results)
    again = [pixels(server.pictures(server.run(text_to_image(**s, seed=5)))[0]) for s in settings]
    assert alone == again and alone[0] != alone[1]
    assert pixels(server.pictures(server.run(text_to_image(erg=False)))[0]) == plain


def test_the_same_prompt_twice_is_cached(server):
    graph = text_to_image(seed=11)
    server.run(graph)
    cached = dict(server.run(graph)["status"]["messages"])["execution_cached"]["nodes"]
    assert {"erg", "clip", "sampler"} <= set(cached)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_batches(server, batch):
    pictures = server.pictures(server.run(text_to_image(batch=batch, seed=batch)))
    assert len({pixels(picture) for picture in pictures}) == batch


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"temperature": -0.5}, "Value -0.5 smaller than min of 0.0"),
        ({"iterations": 0}, "Value 0 smaller than min of 1"),
        ({"end_percent": 1.5}, "Value 1.5 bigger than max of 1.0"),
        ({"attention": "both"}, "Value not in list"),
        ({"clip_temperature": -1.0}, "Value -1.0 smaller than min of 0.0"),
        ({"scale": -1.0}, "Value -1.0 smaller than min of 0.0"),
        ({"rescale": 2.0}, "Value 2.0 bigger than max of 1.0"),
        ({"outside": "nothing"}, "Value not in list"),
    ],
)
def test_values_out_of_range_are_refused_before_anything_runs(server, plain, inputs, message):
    response = server.post("/prompt", {"prompt": text_to_image(**inputs)})
    assert response.status_code == 400
    assert message in response.text
    assert pixels(server.pictures(server.run(text_to_image(erg=False)))[0]) == plain


@pytest.mark.parametrize(
    ("inputs", "message", "stopped_at"),
    [
        ({"layers": ""}, "layers = '' is empty", "erg"),
        ({"layers": "4,,5"}, "layers = '4,,5' is empty or has an empty part", "erg"),
        ({"layers": "middling"}, "cannot read 'middling'", "erg"),
        ({"layers": "60%-40%"}, "must rise", "erg"),
        ({"start_percent": 0.7, "end_percent": 0.3}, "the window must end after it starts", "erg"),
        ({"clip_layers": "nothing"}, "cannot read 'nothing'", "clip"),
        ({"clip_layers": "8-9"}, "layers = '8-9' selects nothing: clip_l has 4 layers", "clip"),
        # How many layers a model has is known when it runs.
        ({"layers": "99"}, "layers = '99' selects nothing: this model has 12 layers, numbered 0 to 11", "sampler"),
        ({"layers": "middle"}, "layers = 'middle' selects nothing", "sampler"),
    ],
)
def test_bad_input_stops_the_prompt_with_one_error(server, plain, inputs, message, stopped_at):
    error = server.error(server.run(text_to_image(**inputs)))
    assert message in error["exception_message"]
    assert error["node_id"] == stopped_at
    assert pixels(server.pictures(server.run(text_to_image(erg=False)))[0]) == plain


def test_bad_values_from_another_node_are_refused_too(server):
    """ComfyUI checks ranges of typed values only; a linked value reaches the node."""
    graph = text_to_image()
    graph["number"] = node("PrimitiveFloat", value=-2.0)
    graph["erg"]["inputs"]["temperature"] = ["number", 0]
    error = server.error(server.run(graph))
    assert error["node_type"] == "EntropyGuidanceERG"
    assert "temperature = -2.0: it must be a finite number of 0 or more" in error["exception_message"]


@pytest.mark.smoke
def test_a_guider_with_a_negative_prompt_and_annealed_conditions(server, plain):
    changes = [
        {},
        {"negative": False},
        {"cads": {"noise_scale": 0.0}},
        {"cads": {"seed": 1}},
        {"erg": {"temperature": 1.0}},
    ]
    drawn = [pixels(server.pictures(server.run(guided_away(**change)))[0]) for change in (*changes, {})]
    assert len(set(drawn)) == len(changes) and drawn[0] == drawn[-1]
    assert pixels(server.pictures(server.run(text_to_image(erg=False)))[0]) == plain


@pytest.mark.parametrize(
    ("change", "message", "stopped_at"),
    [
        ({"cads": {"tau1": 0.95}}, "tau1 = 0.95 and tau2 = 0.9: tau1 must not be above tau2", "cads"),
        ({"guider": {"scale": ["number", 0]}}, "scale = -2.0: it must be a finite number of 0 or more", "guider"),
        ({"guider": {"negative_scale": ["number", 0]}}, "negative_scale = -2.0: it must be", "guider"),
        ({"cads": {"noise_scale": ["number", 0]}}, "noise_scale = -2.0: it must be", "cads"),
    ],
)
def test_bad_input_of_guider_and_cads(server, plain, change, message, stopped_at):
    graph = guided_away(**change)
    graph["number"] = node("PrimitiveFloat", value=-2.0)
    error = server.error(server.run(graph))
    assert message in error["exception_message"]
    assert error["node_id"] == stopped_at
    assert pixels(server.pictures(server.run(text_to_image(erg=False)))[0]) == plain


@pytest.mark.smoke
def test_a_classifier_guides(server, plain):
    drawn = [
        server.pictures(server.run(classifier_guided(guidance={"scale": scale}, batch=2))) for scale in (0.0, 0.2, 0.2)
    ]
    unguided, guided, again = ([pixels(picture) for picture in pictures] for pictures in drawn)
    assert len(guided) == 2 and not set(unguided) & set(guided)
    assert guided == again
    assert pixels(server.pictures(server.run(text_to_image(erg=False)))[0]) == plain


@pytest.mark.smoke
def test_the_guided_ddpm_sampler_draws(server):
    graph = classifier_guided()
    graph["ddpm"] = node(
        "EntropyGuidanceDDPMSampler", score=["score", 0], scale=1.0, gamma=0.3, tilt=0.0, vae=["demo", 2]
    )
    graph["steps"] = node("BasicScheduler", model=["demo", 0], scheduler="simple", steps=4, denoise=1.0)
    graph["sampler"] = node(
        "SamplerCustom", model=["demo", 0], add_noise=True, noise_seed=1, cfg=1.0, positive=["empty", 0],
        negative=["empty", 0], sampler=["ddpm", 0], sigmas=["steps", 0], latent_image=["latent", 0],
    )  # fmt: skip
    del graph["apply"]
    assert server.pictures(server.run(graph))


@pytest.mark.parametrize(
    ("changes", "message", "stopped_at"),
    [
        ({"score": {"labels": "bleu"}}, "no class 'bleu'. Did you mean 'blue'", "score"),
        ({"score": {"labels": "6"}}, "there is no class 6; the classifier has 6, numbered from 0", "score"),
        (
            {"score": {"divergence": "forward_kl", "target_confidence": 1.0}},
            "target_confidence = 1 makes the divergence 'forward_kl' infinite",
            "score",
        ),
        ({"loader": {"prompts": "a cat\na dog"}}, "prompts are for zero-shot models", "classifier"),
        ({"guidance": {"start_percent": 0.5, "end_percent": 0.5}}, "the window must end after it starts", "apply"),
        ({"guidance": {"decode": "taesd"}}, "decode = 'taesd': there is no", "apply"),
        ({"vae": False}, "vae: the model works in a latent space of 4 channels", "apply"),
        ({"score": {"labels": "red, blue"}, "batch": 3}, "2 classes for a batch of 3 images", "sampler"),
    ],
)
def test_bad_input_to_classifier_guidance(server, plain, changes, message, stopped_at):
    error = server.error(server.run(classifier_guided(**changes)))
    assert message in error["exception_message"]
    assert error["node_id"] == stopped_at
    assert pixels(server.pictures(server.run(text_to_image(erg=False)))[0]) == plain


@pytest.mark.smoke
def test_a_class_is_drawn_in_pixels(server):
    plain, erg, guided = (
        [pixels(picture) for picture in server.pictures(server.run(graph))]
        for graph in (class_conditional(erg=False), class_conditional(), papers_ddpm())
    )
    assert len(plain) == len(erg) == len(guided) == 2
    assert len({*plain, *erg, *guided}) == 6


@pytest.mark.parametrize(
    ("graph", "message", "stopped_at"),
    [
        (
            {"condition": {"labels": "red cirle"}},
            "the model knows no class 'red cirle'. Did you mean 'red circle'",
            "class",
        ),
        ({"condition": {"labels": "0, 1, 2"}}, "labels has 3 classes for a batch of 2 images", "sampler"),
        ({"latent": {"width": 48, "height": 16}}, None, None),
        ({"latent": {"width": 32, "height": 32, "batch_size": 3}}, "labels has 2 classes for a batch of 3", "sampler"),
    ],
)
def test_bad_input_to_class_conditional_models(server, graph, message, stopped_at):
    prompt = server.run(class_conditional(**graph))
    if message is None:  # multiples of 16 are sizes that every ADM can draw
        assert server.pictures(prompt)
        return
    error = server.error(prompt)
    assert message in error["exception_message"] and error["node_id"] == stopped_at


def test_bad_input_to_the_papers_ddpm(server):
    wrong = papers_ddpm("entropy-guidance-demo", {"labels": "red"})
    error = server.error(server.run(wrong))
    assert "knows 6 classes, and the model draws 18" in error["exception_message"] and error["node_id"] == "sampler"
    vae = papers_ddpm()
    vae["demo"] = node("EntropyGuidanceLoadDemo")
    vae["ddpm"]["inputs"]["vae"] = ["demo", 2]
    error = server.error(server.run(vae))
    assert "Wire none: the model draws pixels" in error["exception_message"] and error["node_id"] == "sampler"


def test_a_classifier_outside_of_the_model_folders_is_refused(server):
    response = server.post("/prompt", {"prompt": classifier_guided(loader={"classifier_name": "../../secrets.pth"})})
    assert response.status_code == 400
    assert "Value not in list" in response.text


@pytest.mark.parametrize(
    "graph",
    [text_to_image(steps=2000, layers="all", temperature=0.01, seed=99), classifier_guided(steps=2000)],
    ids=["erg", "classifier"],
)
def test_interrupt_leaves_nothing_behind(server, plain, graph):
    long = server.queue(graph)
    while not server.get("/queue")["queue_running"]:
        time.sleep(0.1)
    time.sleep(2)
    server.post("/interrupt", {})
    status = server.wait(long)["status"]
    assert "execution_interrupted" in dict(status["messages"])
    assert pixels(server.pictures(server.run(text_to_image(erg=False, seed=1)))[0]) == plain
    server.pictures(server.run(text_to_image(seed=12)))


@pytest.mark.smoke
def test_calibrates_reports_and_saves(server):
    result = server.run(calibrated(save={"filename_prefix": "first"}))
    again = server.run(calibrated(save={"filename_prefix": "again"}))  # as after unmuting the node: nothing is repeated
    assert "calibrate" in dict(again["status"]["messages"])["execution_cached"]["nodes"]
    sizes = [Image.open(io.BytesIO(picture)).size for picture in server.pictures(result)]
    assert len(sizes) == 2 and all(width >= 400 for width, _ in sizes)
    assert max(sizes)[1] > 700 or min(sizes)[1] > 700, "one of the pictures has two rows of diagrams"
    (text,) = result["outputs"]["saved"]["text"]
    name = text.removeprefix("Saved as ")
    assert name.startswith("first_00001_")
    loader = server.get("/object_info/EntropyGuidanceLoadClassifier")["EntropyGuidanceLoadClassifier"]
    assert name in str(loader["input"]["required"]["classifier_name"])
    server.pictures(server.run(classifier_guided(loader={"classifier_name": name})))


def test_interrupting_a_calibration(server, plain):
    long = server.queue(calibrated(training={"steps": 100_000, "learning_rate": 1e-7, "seed": 5}))
    while not server.get("/queue")["queue_running"]:
        time.sleep(0.1)
    time.sleep(5)
    server.post("/interrupt", {})
    result = server.wait(long)
    assert "execution_interrupted" in dict(result["status"]["messages"]) and not result["outputs"]
    assert pixels(server.pictures(server.run(text_to_image(erg=False, seed=1)))[0]) == plain
    server.pictures(server.run(calibrated()))


@pytest.mark.parametrize(
    ("changes", "message", "stopped_at"),
    [
        ({"save": {"filename_prefix": "../../evil"}}, "write a name below ComfyUI's output folder", "saved"),
        ({"report": {"model": ["demo", 0]}}, "conditioning: a model is wired, so it needs a prompt", "report"),
        (
            {"training": {"batch_size": 4000}},
            "batch_size = 4000: the folder 'entropy-guidance-demo' has 4",
            "calibrate",
        ),
        ({"training": {"steps": ["number", 0]}}, "steps = -2: it must be a whole number of 1 or more", "calibrate"),
    ],
)
def test_bad_input_to_calibration(server, changes, message, stopped_at):
    graph = calibrated(**changes)
    graph["number"], graph["demo"] = node("PrimitiveInt", value=-2), node("EntropyGuidanceLoadDemo")
    error = server.error(server.run(graph))
    assert message in error["exception_message"]
    assert error["node_id"] == stopped_at


@pytest.mark.parametrize(
    ("training", "message"),
    [({"steps": 0}, "Value 0 smaller than min of 1"), ({"image_folder": "../../secrets"}, "Value not in list")],
)
def test_calibration_values_out_of_range_are_refused_before_anything_runs(server, training, message):
    response = server.post("/prompt", {"prompt": calibrated(training=training)})
    assert response.status_code == 400
    assert message in response.text


def drawn_and_plotted(server, result) -> tuple[bytes, bytes]:
    """The pixels of the picture and of the plot."""
    opened = [Image.open(io.BytesIO(picture)) for picture in server.pictures(result)]
    drawn, plot = sorted(opened, key=lambda picture: picture.width)
    assert drawn.width == 128 and plot.width == 1200
    return drawn.tobytes(), plot.tobytes()


@pytest.mark.smoke
def test_guidance_is_recorded_and_plotted(server):
    """The picture is that without a record; the record's node stays cached while the sampler runs again."""
    (expected,) = server.pictures(server.run(text_to_image(seed=21)))
    plots = []
    for seed in (21, 22, 21, 23):
        result = server.run(recorded(seed=seed))
        cached = dict(result["status"]["messages"])["execution_cached"]["nodes"]
        assert ("record" in cached) == bool(plots)
        drawn, plot = drawn_and_plotted(server, result)
        assert (drawn == pixels(expected)) == (seed == 21)
        plots.append(plot)
    assert plots[0] == plots[2] and len({*plots}) == 3
    again = server.run(recorded(seed=23))  # nothing has changed
    assert "plot" in dict(again["status"]["messages"])["execution_cached"]["nodes"]
    assert drawn_and_plotted(server, again)[1] == plots[3]


def test_a_plot_that_is_added_later_needs_no_new_sampling(server):
    graph = recorded(seed=31)
    del graph["plot"], graph["plotted"]
    assert server.pictures(server.run(graph))
    result = server.run(recorded(seed=31))
    assert "sampler" in dict(result["status"]["messages"])["execution_cached"]["nodes"]
    assert drawn_and_plotted(server, result)


def test_two_samplings_with_one_recorded_model_have_a_plot_each(server):
    graph = recorded(seed=41)
    graph["other"] = node("KSampler", **{**graph["sampler"]["inputs"], "seed": 42})
    graph["other plot"] = node("EntropyGuidancePlot", record=["record", 1], latent=["other", 0])
    graph["other plotted"] = node("SaveImage", images=["other plot", 0], filename_prefix="plot")
    assert len({pixels(picture) for picture in server.pictures(server.run(graph))}) == 3


@pytest.mark.parametrize(
    ("temperature", "sampled", "plotted", "message"),
    [
        (0.21, "erg", "sampler", "record: nothing was sampled with the recorded model. Wire the MODEL output"),
        (0.22, "record", "flipped", "latent: none of the last 1 recorded samplings drew it. Wire the LATENT output"),
    ],
)
def test_a_plot_that_is_wired_wrongly_says_how(server, temperature, sampled, plotted, message):
    graph = recorded(temperature=temperature)
    graph["my record"] = graph.pop("record")  # no other test's
    graph["flipped"] = node("LatentFlip", samples=["sampler", 0], flip_method="x-axis: vertically")
    graph["sampler"]["inputs"]["model"] = [{"record": "my record"}.get(sampled, sampled), 0]
    graph["plot"]["inputs"] = {"record": ["my record", 1], "latent": [plotted, 0]}
    error = server.error(server.run(graph))
    assert message in error["exception_message"] and error["node_id"] == "plot"


@pytest.mark.smoke
def test_start_up_names_no_error_and_a_short_import(server):
    log = server.log.read_text()
    seconds = re.search(r"([\d.]+) seconds: .*Entropy-Guidance", log)
    assert seconds, log
    assert "(IMPORT FAILED)" not in log  # of a node pack; an old ComfyUI's own nodes may miss a package
