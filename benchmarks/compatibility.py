"""What ERG reaches in every diffusion model. `python -m benchmarks.compatibility` writes docs/compatibility.md.

Each model is a small network of ComfyUI's own class or of this pack's loaders with random weights, run as a sampler runs it.
What ERG changes is measured without its help: in the queries (or logits) of whatever torch computes as attention (or softmax).
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import comfy.supported_models
import torch
from comfyui_version import __version__ as COMFYUI_VERSION
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from tools.environment import REPOSITORY

from . import small_networks
from .in_process import load_nodes, pack_module, run_node
from .one_step import predict
from .tolerance import agree

PAGE = REPOSITORY / "docs" / "compatibility.md"
NOT_DIFFUSION = {"RT_DETR_v4", "SAM3", "SAM31", "DepthAnything3"}  # ComfyUI loads them as it loads diffusion models
# Why no block of a model is shared.
UNSHARED = {
    **dict.fromkeys(
        ("ACEStep15", "ACEStep15:reference"), "the network puts what it hears of a voice in another place for each row"
    ),
    "SeedVR2": "its blocks get windows of all rows in one sequence",
    **dict.fromkeys(("WAN_Animate2", "WAN_Animate2:no_pose"), "it calls its blocks by methods of their own"),
    **dict.fromkeys(("Trellis2:shape", "Trellis2:texture"), "its voxels are listed with the numbers of their rows"),
    "WAN21_CausalAR_T2V:ar_state": "another node changes its evaluations, which may tell the branches apart",
    **dict.fromkeys(
        ("MiniMaxH3", "MiniMaxH3:keyframes", "MiniMaxH3:references"), "ComfyUI evaluates its conditions one by one"
    ),
}
NEARLY_ONE = 1.01  # a temperature that a logit shows, and that hardly changes what later layers see


@dataclass(frozen=True)
class Findings:
    """What was seen of one model.

    network: its class. layers: how many of them a user can choose from. changed: attention that ERG changes with all
    layers chosen. untouched: attention that it leaves as it is, by module. positive_kept (as `is_kept` has it),
    negative_changed: of the predictions for one picture and for two, by a temperature and by a flatness. energy: whether α, γ
    and K other than 1 work, or why not.
    blocks: how many do matrix products, convolutions or attention; shared: of those, how many do half as much where both
    branches have one prompt and ERG changes the last layer. same_shared: whether both predictions then stay what they are.
    """

    network: str
    layers: int
    changed: int
    untouched: dict[str, int]
    positive_kept: bool
    negative_changed: bool
    energy: str
    shared: int
    blocks: int
    same_shared: bool

    @property
    def works(self) -> bool:
        return self.positive_kept and self.negative_changed and self.changed > 0


def examine(name: str) -> Findings:
    """Runs ERG on the small network of a class of comfy.supported_models."""
    model, small = small_networks.build(name), small_networks.NETWORKS[name]
    kept = changed = True
    for batch in range(1, small.most + 1):
        ordinary, weak = (settled(m, small.conditions(), small.latent(batch)) for m in (model, _erg(model)))
        flat = settled(_erg(model, flatness=0.5), small.conditions(), small.latent(batch))
        kept &= is_kept(model, ordinary[0], weak[0]) and is_kept(model, ordinary[0], flat[0])
        changed &= not any(map(torch.equal, ordinary[1], weak[1]))  # each picture
        changed &= not any(map(torch.equal, ordinary[1], flat[1])) and flat[1].isfinite().all().item()
    network = model.model.diffusion_model
    reached, untouched = _reach(model, small)
    layers = pack_module("nodes.attention.layers").known_map(network)  # learnt above
    return Findings(
        type(network).__name__,
        len(layers.sections),
        reached,
        untouched,
        kept,
        changed,
        _energy(model, small, ordinary, weak),
        *_shared(model, small, len(layers.sections) - 1),
    )


def is_kept(model, before: torch.Tensor, after: torch.Tensor) -> bool:
    """Whether a branch is what it was: bit for bit, or to rounding where the network sends tokens to experts. An expert
    gets tokens of both branches in one matrix, whose number of rows changes with the other branch, and kernels with it."""
    if any(type(module).__name__ == "MoEGate" for module in model.model.diffusion_model.modules()):
        return agree(after, before)
    return torch.equal(before, after)


def settled(model, conditions, latent) -> list[torch.Tensor]:
    """Predictions of a second evaluation: HiDream-O1 keeps the prompt's keys of the first, which rounds a little otherwise."""
    predict(model, conditions, latent)
    return predict(model, conditions, latent)


def _erg(model, **inputs):
    return run_node("EntropyGuidanceERG", model=model, **{"temperature": 0.01, "layers": "all", **inputs})[0]


def _reach(model, small) -> tuple[int, dict[str, int]]:
    """How many attentions of the negative branch ERG changes, and how many not, by module."""
    latent, conditions = small.latent(), (None, small.conditions()[1])
    erg = _erg(model, temperature=NEARLY_ONE)
    predict(erg, conditions, latent)  # learns the layers
    ordinary, weak = (attentions(m, conditions, latent) for m in (model, erg))
    assert [module for module, _ in ordinary] == [module for module, _ in weak]
    untouched = Counter(
        re.sub(r"\d+", "*", module)
        for (module, a), (_, b) in zip(ordinary, weak)
        if (a * b).sum() / a.square().sum() < (1 + NEARLY_ONE) / 2
    )
    return len(ordinary) - untouched.total(), dict(untouched)


def attentions(model, conditions, latent) -> list[tuple[str, torch.Tensor]]:
    """For each attention that torch computes in an evaluation the module that makes it, and its queries or logits."""
    with _AttentionSpy(model.model.diffusion_model) as spy:
        predict(model, conditions, latent)
    return spy.seen


class _AttentionSpy(TorchFunctionMode):
    def __init__(self, network):
        super().__init__()
        self.seen, self.running = [], [""]
        self.handles = []
        for name, module in network.named_modules():
            self.handles += [
                module.register_forward_pre_hook(lambda *_, name=name or "network": self.running.append(name)),
                module.register_forward_hook(lambda *_: self.running.pop() and None, always_call=True),
            ]

    def __torch_function__(self, function, types, args=(), kwargs=None):
        # A softmax in a gate chooses experts, one of a single row of numbers weighs the layers of a text encoder.
        if function.__name__ in ("scaled_dot_product_attention", "softmax") and not (
            self.running[-1].endswith(".gate") or args[0].ndim == 1
        ):
            self.seen.append((self.running[-1], args[0].double()))
        return function(*args, **(kwargs or {}))

    def __exit__(self, *exception):
        for handle in self.handles:
            handle.remove()
        return super().__exit__(*exception)


def _energy(model, small, ordinary, scaled) -> str:
    """Whether the general energy works: each parameter makes a difference of its own, in the negative branch alone."""
    seen = [ordinary[1], scaled[1]]
    try:
        for inputs in ({"alpha": 0.9}, {"step_size": 1.2}, {"iterations": 2}):
            positive, negative = predict(_erg(model, **inputs), small.conditions(), small.latent(small.most))
            if not is_kept(model, ordinary[0], positive) or not negative.isfinite().all():
                return "no"
            if any(torch.equal(negative, other) for other in seen):
                return "no"
            seen.append(negative)
    except RuntimeError as error:
        return "no: queries and values differ in width" if "differ in width" in str(error) else f"no: {error}"
    return "yes"


def _shared(model, small, last_layer: int) -> tuple[int, int, bool]:
    """How many blocks are shared, of how many, and whether the predictions agree with those without sharing."""
    conditions, latent, seen = (small.conditions()[0],) * 2, small.latent(), []
    for share in (True, False):
        erg = _erg(model, layers=str(last_layer), share_trunk=share)
        predict(erg, conditions, latent)  # tries it
        with FlopCounterMode(display=False) as counter:
            predictions = predict(erg, conditions, latent)
        seen.append((_arithmetic_of_blocks(model, counter), predictions))
    (shared, found), (unshared, expected) = seen
    half = [
        name for name, count in unshared.items() if shared[name] < 0.6 * count
    ]  # half, and what each call does once
    return len(half), len(unshared), all(map(agree, found, expected))


def _arithmetic_of_blocks(model, counter: FlopCounterMode) -> dict[str, int]:
    """The floating-point operations of each of the outermost blocks that were counted."""
    network = model.model.diffusion_model
    counts = {name: sum(of_module.values()) for name, of_module in counter.get_flop_counts().items()}
    blocks = {
        f"{type(network).__name__}.{name}" for name, _ in pack_module("nodes.attention.layers").blocks_of(network)
    }
    running = {name for name in blocks if counts.get(name)}
    return {name: counts[name] for name in sorted(running) if not any(name.startswith(f"{of}.") for of in running)}


def table(found: dict[str, Findings | None], others: Iterable[str] = (), version: str = COMFYUI_VERSION) -> str:
    """The page: a row for each kind of findings, with the models that share it; None stands for 'not yet tested'.

    others: the rows of models that this ComfyUI does not have. version: of the newest ComfyUI that had a part in it.
    """
    rows = {}
    for name, findings in found.items():
        since = small_networks.NETWORKS[name].since if findings else ""
        rows.setdefault((repr(findings), since), (findings, since, []))[2].append(name)
    lines = [*others, *(_row(findings, since, names) for findings, since, names in rows.values())]
    linear = pack_module("nodes.attention.reach").LINEAR
    notes = [f"{network.rpartition('.')[2]}: {note}." for network, note in linear.items()]
    return "\n".join([HEAD.format(version=version) + "\n".join(sorted(lines, key=str.lower)), "", *notes, ""])


HEAD = """# What ERG reaches in each model

Written by `python -m benchmarks.compatibility`; the tests compare it with what they measure. ComfyUI {version}:
every model class that it or this pack can load, as a small network of that class with random weights, run as a sampler
runs it.

- *network*: a release in brackets is the one whose source was first seen to have it; ComfyUI 0.30 has all others but those
  of this pack's loaders.
- *layers*: from how many `layers` chooses (in the small network; a real one has more).
- *changed*: attention of the negative branch that ERG changes with `layers` = all. The positive branch keeps its bits;
  where tokens of both branches go through experts together (HiDream, Hunyuan3D 2.1), on some processors to rounding.
- *left alone*: attention that reads the condition before it meets the picture (refiners of text and reference pictures,
  poolers, encoders of lyrics and music). ERG does not touch it on purpose: a flatter reading of the prompt is what ERG Text
  Encoder is for.
- a model with a colon is a mode of it: with reference pictures, keyframes and the like.
  `ar_state` is what the sampler ar_video tells a network, its memory of earlier frames made anew in each evaluation; the
  sampler itself keeps one for a single branch, so that ERG's own (`scale`) is an error there.
- *general energy*: whether `alpha`, `step_size` and `iterations` other than 1 work.
- *shared blocks*: where both branches have one prompt, how many blocks of the small network run once for both
  (`share_trunk`) with its last layer changed, seen in the arithmetic that each block does. Both predictions then agree
  with those without sharing, to rounding. Blocks that read the condition alone run for each branch.

| network | models | works | layers | changed | left alone | general energy | shared blocks |
|---|---|---|---|---|---|---|---|
"""


def _row(findings: Findings | None, since: str, names: list[str]) -> str:
    models = ", ".join(names)
    if findings is None:
        return f"| ? | {models} | not yet tested | | | | | |"
    left = ", ".join(f"{count} × `{module}`" for module, count in findings.untouched.items())
    return (
        f"| {findings.network}{since and f' ({since})'} | {models} | {'yes' if findings.works else '**no**'} | {findings.layers} | "
        f"{findings.changed} | {left} | {findings.energy} | {_shared_blocks(findings, names)} |"
    )


def _shared_blocks(findings: Findings, names: list[str]) -> str:
    why_not = "" if findings.shared else f": {UNSHARED.get(names[0], 'unknown')}"
    return f"{findings.shared} of {findings.blocks}{why_not}"


def rows_of_others(page: str) -> list[str]:
    """The rows of a page that tell of models which this ComfyUI does not have."""
    rows = (line for line in page.splitlines() if line.startswith("| ") and line.count(" | ") > 2)
    known = {"models", *model_names()}
    return [row for row in rows if known.isdisjoint(row.split(" | ")[1].split(", "))]


def version_of(page: str) -> str:
    return re.search(r"ComfyUI ([\d.]+\w*):", page)[1]


def model_names() -> list[str]:
    """The classes of comfy.supported_models that are diffusion models, further modes of their small networks, and ours."""
    names = [config.__name__ for config in comfy.supported_models.models if config.__name__ not in NOT_DIFFUSION]
    return names + [name for name in small_networks.NETWORKS if ":" in name or name in small_networks.OWN]


def examine_all() -> dict[str, Findings | None]:
    return {name: examine(name) if name in small_networks.NETWORKS else None for name in model_names()}


if __name__ == "__main__":
    load_nodes()
    with torch.inference_mode():
        page = PAGE.read_text(encoding="utf-8")
        others = rows_of_others(page)
        version = version_of(page) if others else COMFYUI_VERSION  # an older ComfyUI leaves the page a newer one's
        PAGE.write_text(table(examine_all(), others, version), encoding="utf-8")
    print(PAGE)
