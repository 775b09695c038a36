"""Small graphs of the pack's nodes between ComfyUI's own, in the format of its HTTP API."""

from functools import cache

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import nodes  # ComfyUI's

from ..in_process import pack_node_ids
from .custom_nodes.ends_of_graphs import NODE_CLASS_MAPPINGS
from .declared import all_declared, declared
from .values import WIDGETS, first, linked, widget

nodes.NODE_CLASS_MAPPINGS.update(NODE_CLASS_MAPPINGS)  # which a server loads as it does other packs
DEPTH = 3  # nodes between a loader and the sampler
MADE = {"MODEL": 7, "GUIDANCE_CLASSIFIER": 1}  # of 10 links of a type so many to a new node
LENGTHY = ("EntropyGuidanceCalibrate", "EntropyGuidanceCalibrationReport")  # seconds each: left out where time is short
CHANGED, STRANGE = (
    5,
    2,
)  # values at most, in one graph, that are not the defaults, and that a link brings from beyond its range
SAMPLERS = ("euler", "heun", "dpmpp_2m", "dpmpp_sde", "lcm", "ddim", "uni_pc")
SCHEDULERS = ("simple", "normal", "karras", "beta")
PROMPTS = ("a red circle left of a blue square", "a green triangle", "")

# Loaders and what begins a graph. They are in all graphs, so that ComfyUI keeps what they gave, whether it is used or not.
BEGINNING = {
    "demo": ("EntropyGuidanceLoadDemo", {}),
    "classes": ("EntropyGuidanceLoadADM", {"model_name": "entropy-guidance-demo-classes", "clip_denoised": True}),
    "classifier": ("EntropyGuidanceLoadClassifier", {"classifier_name": "entropy-guidance-demo", "prompts": ""}),
    "classes classifier": (
        "EntropyGuidanceLoadClassifier",
        {"classifier_name": "entropy-guidance-demo-classes", "prompts": ""},
    ),
    "noise-aware classifier": (
        "EntropyGuidanceLoadClassifier",
        {"classifier_name": "entropy-guidance-demo-classes-noise-aware", "prompts": ""},
    ),
    "prompt": ("CLIPTextEncode", {"clip": ["demo", 1], "text": PROMPTS[0]}),
    "class": ("EntropyGuidanceClassCondition", {"model": ["classes", 0], "labels": "red circle"}),
    "latent": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 2}),
    "pixels": ("EmptyChromaRadianceLatentImage", {"width": 32, "height": 32, "batch_size": 2}),
}
TEXT, CLASS = "CLIPTextEncode", "EntropyGuidanceClassCondition"
CLASSES = {"MODEL": "classes 0", "CLIP": "demo 1", "CONDITIONING": "class 0", "LATENT": "pixels 0"}
# What fits together, and what is left out with it; in the last nothing fits.
WORLDS = (
    ({"MODEL": "demo 0", "CLIP": "demo 1", "VAE": "demo 2", "CONDITIONING": "prompt 0", "LATENT": "latent 0", "GUIDANCE_CLASSIFIER": "classifier 0"}, CLASS),
    ({**CLASSES, "GUIDANCE_CLASSIFIER": "classes classifier 0"}, TEXT),
    ({**CLASSES, "GUIDANCE_CLASSIFIER": "noise-aware classifier 0"}, TEXT),
    ({**CLASSES, "VAE": "demo 2", "CONDITIONING": "prompt 0", "LATENT": "latent 0", "GUIDANCE_CLASSIFIER": "classifier 0"}, ""),
)  # fmt: skip
OFTEN = (0, 0, 0, 0, 0, 1, 1, 2, 3)  # which of them
# ComfyUI's nodes between ours: the inputs that are wired and the widgets, all with values that they take.
CORE = {
    "CLIPTextEncode": ({"clip": "CLIP"}, {"text": st.sampled_from(PROMPTS)}),
    "KSamplerSelect": ({}, {"sampler_name": st.sampled_from(SAMPLERS)}),
    "CFGGuider": (
        {"model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING"},
        {"cfg": st.sampled_from((0.0, 1.0, 2.0, 7.5))},
    ),
    "RandomNoise": ({}, {"noise_seed": st.integers(0, 2**64 - 1)}),
    "BasicScheduler": (
        {"model": "MODEL"},
        {"scheduler": st.sampled_from(SCHEDULERS), "steps": st.just(2), "denoise": st.sampled_from((1.0, 0.5))},
    ),
    "KSampler": (
        {"model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING", "latent_image": "LATENT"},
        {
            "seed": st.integers(0, 2**64 - 1), "steps": st.sampled_from((1, 2)), "cfg": st.sampled_from((0.0, 1.0, 2.0, 7.5)),
            "sampler_name": st.sampled_from(SAMPLERS), "scheduler": st.sampled_from(SCHEDULERS),
            "denoise": st.sampled_from((1.0, 0.5)),
        },
    ),
    "SamplerCustom": (
        {
            "model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING", "sampler": "SAMPLER", "sigmas": "SIGMAS",
            "latent_image": "LATENT",
        },
        {"add_noise": st.booleans(), "noise_seed": st.integers(0, 2**64 - 1), "cfg": st.sampled_from((1.0, 2.0))},
    ),
    "SamplerCustomAdvanced": (
        {"noise": "NOISE", "guider": "GUIDER", "sampler": "SAMPLER", "sigmas": "SIGMAS", "latent_image": "LATENT"},
        {},
    ),
}  # fmt: skip
ENDS = ("KSampler", "KSampler", "SamplerCustom", "SamplerCustomAdvanced")


def graph_of(number: int, quick: bool = False) -> dict:
    """The graph of that number, always the same in one release of hypothesis. quick: without LENGTHY."""
    found: list[dict] = []

    # The first example is the simplest one, the last is drawn.
    @seed(number)
    @settings(
        max_examples=2, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(graphs(LENGTHY if quick else ()))
    def collect(graph):
        found.append(graph)

    collect()
    return found[-1]


@st.composite
def graphs(draw, left_out: tuple[str, ...]) -> dict:
    """A graph without some nodes, whose ends are nodes of custom_nodes/."""
    graph = _Graph(draw, left_out)
    any_of_ours = st.sampled_from([kind for kind in ours() if kind not in left_out])
    end = draw(st.sampled_from(ENDS))
    graph.keep(graph.core(end, DEPTH) if draw(st.integers(0, 5)) else graph.ours(draw(any_of_ours), DEPTH))
    if draw(st.integers(0, 3)) == 0:  # one more, which may read what is there
        graph.keep(graph.ours(draw(any_of_ours), DEPTH))
    graph.change(draw(st.integers(0, CHANGED)))
    graph.make_strange(draw(st.integers(-STRANGE, STRANGE)))
    return graph.prompt


@cache
def ours() -> tuple[str, ...]:
    return tuple(sorted(pack_node_ids()))


def own_nodes(prompt: dict) -> dict:
    """Of a graph, without what all graphs begin with."""
    return {name: node for name, node in prompt.items() if name not in BEGINNING}


def without_ours(prompt: dict) -> dict:
    """The same graph, whose ComfyUI's nodes get their model as it was loaded."""
    return {name: _unguided(prompt, node) if node["class_type"] in CORE else node for name, node in prompt.items()}


def _unguided(prompt: dict, node: dict) -> dict:
    wires, _ = CORE[node["class_type"]]
    loaded = {name: _loaded(prompt, node["inputs"][name]) for name, kind in wires.items() if kind == "MODEL"}
    return {**node, "inputs": node["inputs"] | loaded}


def _loaded(prompt: dict, link: list) -> list:
    """Where a model comes from at first."""
    above = prompt[link[0]]["inputs"].get("model")
    return _loaded(prompt, above) if above else link


class _Graph:
    def __init__(self, draw, left_out: tuple[str, ...]):
        self.draw = draw
        self.world, unfit = WORLDS[draw(st.sampled_from(OFTEN))]
        self.left_out = (*left_out, unfit)
        self.prompt = {name: {"class_type": kind, "inputs": dict(inputs)} for name, (kind, inputs) in BEGINNING.items()}

    def core(self, kind: str, depth: int) -> str:
        wires, widgets = CORE[kind]
        inputs = {name: self.draw(strategy) for name, strategy in widgets.items()}
        return self._add(kind, inputs | {name: self._link(socket, depth) for name, socket in wires.items()})

    def ours(self, kind: str, depth: int) -> str:
        required, optional = declared(kind)
        wired = {name: of for name, of in optional.items() if self._can_be(of[0]) and self.draw(st.integers(0, 7))}
        return self._add(kind, {name: self._value(name, *of, depth) for name, of in (required | wired).items()})

    def _value(self, name: str, kind: str, options: dict, depth: int):
        return self.draw(first(name, kind, options)) if kind in WIDGETS else self._link(kind, depth)

    def _can_be(self, kind: str) -> bool:
        return kind in WIDGETS or kind in self.world or bool(self._makers(kind))

    def _link(self, socket: str, depth: int) -> list:
        """An output of that type: of the beginning, of a node that is there, or of a new one."""
        there = [link for name in self.prompt if name not in BEGINNING for link in outputs(self.prompt, name, socket)]
        makers = [] if depth == 0 and socket in self.world else self._makers(socket)
        choice = self.draw(st.integers(0, 9))
        if there and choice == 9:
            return self.draw(st.sampled_from(there))
        if makers and (choice < MADE.get(socket, 3) or socket not in self.world):
            return self._made(self.draw(st.sampled_from(makers)), socket, max(depth - 1, 0))
        name, slot = self.world[socket].rsplit(maxsplit=1)
        return [name, int(slot)]

    def _makers(self, socket: str) -> list[str]:
        return [kind for kind in makers_of(socket) if kind not in self.left_out]

    def _made(self, kind: str, socket: str, depth: int) -> list:
        name = self.core(kind, depth) if kind in CORE else self.ours(kind, depth)
        return outputs(self.prompt, name, socket)[0]

    def _add(self, kind: str, inputs: dict) -> str:
        name = f"{len(self.prompt)}"
        self.prompt[name] = {"class_type": kind, "inputs": inputs}
        return name

    def keep(self, name: str) -> None:
        """Has all outputs of a node kept; a node without any is an end itself."""
        for slot in range(len(nodes.NODE_CLASS_MAPPINGS[self.prompt[name]["class_type"]].RETURN_TYPES)):
            self._add("Kept", {"value": [name, slot]})

    def change(self, count: int) -> None:
        """Gives `count` widgets another value of theirs."""
        for name, key, *of in self._some_widgets(count):
            self.prompt[name]["inputs"][key] = self.draw(widget(key, *of))

    def make_strange(self, count: int) -> None:
        """Links values from beyond their ranges into `count` inputs, if it is above 0."""
        for name, key, *of in self._some_widgets(count):
            value = self._add("AnyValue", {"value": self.draw(linked(key, *of))})
            self.prompt[name]["inputs"][key] = [value, 0]

    def _some_widgets(self, count: int) -> list[tuple]:
        """Of our nodes: the name of each in the graph, the input, its type and options."""
        there = [
            (name, key, *of)
            for name, node in self.prompt.items()
            if node["class_type"] in ours() and name not in BEGINNING
            for key, of in all_declared(node["class_type"]).items()
            if key in node["inputs"] and of[0] in WIDGETS
        ]
        return [self.draw(st.sampled_from(there)) for _ in range(count if there else 0)]


def outputs(prompt: dict, name: str, socket: str) -> list[list]:
    """Links to a node's outputs of a type."""
    kinds = nodes.NODE_CLASS_MAPPINGS[prompt[name]["class_type"]].RETURN_TYPES
    return [[name, slot] for slot, kind in enumerate(kinds) if kind == socket]


@cache
def makers_of(socket: str) -> tuple[str, ...]:
    """Nodes with such an output, but for ours that begin a graph: those are in a world."""
    makers = [kind for kind in ours() if {of[0] for of in all_declared(kind).values()} - set(WIDGETS)] + [*CORE]
    return tuple(kind for kind in makers if socket in nodes.NODE_CLASS_MAPPINGS[kind].RETURN_TYPES)
