"""What nodes say of a sampling: the counting and its words, and that it costs no wait for the device inside the steps."""

import subprocess
import sys
from dataclasses import dataclass, field, replace
from types import FunctionType

import comfy.samplers
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import io
from comfy_execution.graph import DynamicPrompt
from count_waits import CountWaits

from benchmarks.in_process import pack_module
from tests.nodes.attention.test_compiled import compiler  # noqa: F401
from tools.environment import REPOSITORY

SIGMAS = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])


@pytest.fixture(scope="module")
def feedback(node):
    return pack_module("nodes.feedback")


@pytest.fixture
def told(feedback):
    """told(model) gives the list that fills with what the ERG node of a model says."""

    @dataclass(frozen=True)
    class Told(feedback.Feedback):
        texts: list = field(default_factory=list)

        def say(self, text: str) -> None:
            self.texts.append(text)

    def of(model) -> list[str]:
        *_, sample = model.get_wrappers(WrappersMP.OUTER_SAMPLE, "entropy_guidance_erg")
        sample.__self__.feedback = listening = Told()
        return listening.texts

    return of


def erg(node, model, **inputs):
    return node("EntropyGuidanceERG", model=model, **inputs)[0]


@pytest.mark.parametrize(
    ("done", "others", "found"),
    [
        ([1.0, 0.75, 0.5, 0.25], [], (4, 4)),
        ([1.0, 0.9, 0.75], [0.5, 0.25], (2, 4)),  # 0.9: between two steps, as samplers of second order have it
        ([0.0], [1.0], (1, 4)),  # the end of the schedule is of the last step
        ([], [1.0], (0, 4)),
    ],
)
def test_steps_are_counted_by_the_schedule(feedback, done, others, found):
    steps = feedback.StepCount()
    for sigmas, was_done in ((done, True), (others, False)):
        for sigma in sigmas:
            steps.note(torch.tensor([sigma, sigma]), {"sample_sigmas": SIGMAS}, was_done)
    assert steps.read() == found


def test_steps_without_a_schedule_are_the_evaluations(feedback):
    steps = feedback.StepCount()
    assert steps.read() == (0, 0)
    for sigma, done in ((3.0, True), (3.0, False), (2.0, False)):
        steps.note(torch.tensor(sigma), {}, done)
    assert steps.read() == (1, 2)


@pytest.mark.parametrize(
    ("probabilities", "wanted", "text"),
    [
        ([0.834], ["cat"], "classifier 83 % sure of 'cat'"),
        ([0.2, 0.6], ["cat", "cat"], "classifier 40 % sure of 'cat' (20 to 60 %)"),
        ([0.2, 0.6], ["cat", "dog"], "classifier 40 % sure of the wanted classes (20 to 60 %)"),
        ([float("nan"), 0.6], ["cat", "cat"], "classifier 60 % sure of 'cat'"),
        ([float("nan")], ["cat"], "the classifier's values not finite"),
    ],
)
def test_how_sure_a_classifier_is(node, probabilities, wanted, text):
    assert pack_module("nodes.classifiers.confidence").how_sure(probabilities, wanted) == text


def test_a_node_is_known_by_the_id_that_the_artist_sees(node, feedback):
    """Of copies that a loop runs, the id of the node in the graph."""
    graph = {"7": {"class_type": "EntropyGuidanceERG", "inputs": {}}}
    prompt = DynamicPrompt(graph)
    prompt.add_ephemeral_node("7.0.0.1", graph["7"], "7", "7")
    from nodes import NODE_CLASS_MAPPINGS  # ComfyUI's

    for unique_id in ("7", "7.0.0.1"):
        hidden = {"hidden_inputs": {io.Hidden.unique_id: unique_id, io.Hidden.dynprompt: prompt}}
        running = NODE_CLASS_MAPPINGS["EntropyGuidanceERG"].PREPARE_CLASS_CLONE(hidden)
        assert feedback.Feedback.of(running).node == "7"
    assert feedback.Feedback.of(NODE_CLASS_MAPPINGS["EntropyGuidanceERG"]).node is None  # called by a script


def test_without_a_server_nothing_is_said_and_none_is_loaded():
    code = (
        "import asyncio, sys\n"
        "from benchmarks.in_process import REPOSITORY, nodes, pack_module\n"
        "before = set(sys.modules)\n"
        "assert asyncio.run(nodes.load_custom_node(str(REPOSITORY)))\n"
        "pack_module('nodes.feedback').Feedback('7').say('something')\n"
        "print('server' in set(sys.modules) - before)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert found.stdout.split()[-1:] == ["False"], found.stderr


@pytest.mark.parametrize(
    ("inputs", "options", "text"),
    [
        (
            {},
            {"sampler": "heun"},
            "1 of 12 layers, 6 of 6 steps, 3.7 evaluations a step",
        ),  # two in each step but the last
        ({"start_percent": 0.4}, {}, "1 of 12 layers, 3 of 6 steps, 2.0 evaluations a step"),
        ({"scale": 1.0}, {"cfg": 1.0}, "1 of 12 layers, 6 of 6 steps, 1.6 evaluations a step"),
        ({"scale": 1.0}, {}, "1 of 12 layers, 6 of 6 steps, 2.6 evaluations a step"),
        ({"scale": 1.0, "share_trunk": False}, {"cfg": 1.0}, "1 of 12 layers, 6 of 6 steps, 2.0 evaluations a step"),
        (
            {"scale": 1.0, "end_percent": 0.4, "outside": "no guidance"},
            {},
            "1 of 12 layers, 3 of 6 steps, 1.8 evaluations a step",
        ),
    ],
)
def test_what_erg_says(node, demo, prompts, sample, told, inputs, options, text):
    model = erg(node, demo[0], **inputs)
    sample(model, *prompts, **options)  # the first computes each kind of evaluation with and without shared blocks
    texts = told(model)
    sample(model, *prompts, steps=6, **options)
    assert texts == [text]


def test_the_first_step_is_in_a_window_from_0_though_it_rounds_above_it(node, demo, prompts, sample, told):
    """With some shifts the schedule of a flow model begins a rounding error above the model's highest noise level."""
    shifted = node("ModelSamplingSD3", model=demo[0], shift=2.43)[0]
    sampling = shifted.get_model_object("model_sampling")
    assert sampling.sigmas[-1] > sampling.percent_to_sigma(0)
    model = erg(node, shifted, end_percent=0.2)
    texts = told(model)
    sample(model, *prompts, steps=6)
    assert texts == ["1 of 12 layers, 2 of 6 steps, 2.0 evaluations a step"]


def test_evaluations_that_another_node_spares(node, demo, prompts, sample, told):
    model = erg(node, demo[0])
    texts = told(model)
    cached = node("EasyCache", model=model, reuse_threshold=0.9, start_percent=0.15, end_percent=0.95, verbose=False)[0]
    sample(cached, *prompts, steps=12)
    (text,) = texts
    changed, evaluations = (float(part.split()[0]) for part in text.split(", ")[1:])
    assert 2 <= changed < 12 and evaluations == pytest.approx(2 * changed / 12, abs=0.05)


def test_erg_in_compiled_code(node, demo, prompts, sample, told, compiler):  # noqa: F811
    model = erg(node, compiler.compile(demo[0]), layers="3-5")
    texts = told(model)
    sample(model, *prompts)
    assert texts == ["3 of 12 layers, 3 of 3 steps, 2.0 evaluations a step"]


def test_compiled_evaluations_that_another_node_spares(node, demo, prompts, sample, told, compiler):  # noqa: F811
    model, kept = erg(node, compiler.compile(demo[0])), []

    def every_other(executor, *args, **kwargs):
        kept.append(kept[-1] if len(kept) % 2 else executor(*args, **kwargs))
        return kept[-1]

    model.add_wrapper(WrappersMP.APPLY_MODEL, every_other)
    texts = told(model)
    sample(model, *prompts, steps=4)
    assert texts == ["1 of 12 layers, 2 of 4 steps, 1.0 evaluations a step"]


def test_a_sampling_within_a_sampling_is_not_told_apart(node, demo, prompts, sample, told):
    model, inner = erg(node, demo[0]), []
    texts = told(model)

    def with_details(executor, *args, **kwargs):
        drawn = executor(*args, **kwargs)
        if not inner:
            inner.append(sample(model, *prompts, cfg=1.0, steps=1))
        return drawn

    outer = model.clone()
    outer.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "details", with_details)
    sample(outer, *prompts)
    assert texts == ["1 of 12 layers, 3 of 3 steps, 2.0 evaluations a step"]


def test_an_evaluation_that_runs_again_for_a_new_map_of_layers_counts_once(node, demo, prompts, sample, told):
    model, layers = erg(node, demo[0], scale=1.0), pack_module("nodes.attention.layers")
    sample(model, *prompts, cfg=1.0)
    network = model.model.diffusion_model
    whole, maps = layers.known_map(network), layers._known[network][layers.structure_of(network)]
    other = replace(whole, numbers=dict([*whole.numbers.items()][:-1]), names=whole.names[:-1])
    texts = told(model)
    try:
        for _ in range(2):  # the first finds out whether blocks can be shared with that map, too
            maps.clear()
            maps[frozenset(), None] = other
            sample(model, *prompts, cfg=1.0, steps=1)
    finally:
        maps.clear()
    assert texts[1] == "1 of 12 layers, 1 of 1 steps, 1.6 evaluations a step"


def test_errors_of_others_are_not_its_own(node, demo, prompts, sample, told):
    model = erg(node, demo[0])
    texts = told(model)

    def failing(*args, **kwargs):
        raise RuntimeError("of another node")

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "failing", failing)
    with pytest.raises(RuntimeError, match="of another node"):
        sample(model, *prompts)
    assert texts == []


def test_errors_of_a_pack_whose_name_begins_like_ours_are_not_its_own(feedback):
    def fail() -> None:
        raise ValueError

    def error_from(module: str) -> Exception:
        with pytest.raises(ValueError) as caught:
            FunctionType(fail.__code__, {"__name__": module})()
        return caught.value

    assert feedback._is_ours(error_from(f"{feedback.OUR_PACKAGE}.nodes.erg"))
    assert not feedback._is_ours(error_from(f"{feedback.OUR_PACKAGE}-extras.nodes"))


def test_nothing_waits_for_the_device_inside_the_steps(node, demo, prompts):
    def reads(model) -> tuple[int, int]:
        """Until the last step's end, and in all."""
        guider, at_steps = comfy.samplers.CFGGuider(model), []
        guider.set_conds(*prompts)
        guider.set_cfg(3.0)
        noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        sampler = comfy.samplers.sampler_object("euler")
        found = CountWaits()
        with found.counting():
            guider.sample(
                noise, torch.zeros_like(noise), sampler, SIGMAS, callback=lambda *_: at_steps.append(found.count)
            )
        return at_steps[-1] - at_steps[0], found.count - at_steps[-1]

    classifier = node("EntropyGuidanceLoadClassifier", classifier_name="entropy-guidance-demo")[0]
    score = node("EntropyGuidanceScore", classifier=classifier, labels="blue")[0]
    plain, plain_after = reads(demo[0])
    for model, waits in (
        (erg(node, demo[0], scale=1.0), 0),
        (node("EntropyGuidanceApply", model=demo[0], score=score, vae=demo[2], every=1)[0], 0),
        # Which of its steps a sampler is in is told by sigma alone, which is read once in each.
        (node("EntropyGuidanceApply", model=demo[0], score=score, vae=demo[2], every=2)[0], len(SIGMAS) - 2),
    ):
        reads(model)  # ERG learns the layers
        guided, after = reads(model)
        assert guided == plain + waits and after > plain_after
