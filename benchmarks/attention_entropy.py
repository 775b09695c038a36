"""How evenly the attention of both branches looks around, by layer and step: `python -m benchmarks.attention_entropy`.

Relative entropy (0: one place alone, 1: everywhere alike) of the demo model's attention under CFG and ERG's branches, as
the node Record Guidance measures it, mean over a batch of held-out captions; Euler, one batch. Writes
docs/results/attention_entropy.json, docs/attention-entropy.png and .svg.
"""

from pathlib import Path
from random import Random

import matplotlib.pyplot as plt
import torch

import nodes
from demo.scenes import sample_scene

from . import results
from .figure_style import save
from .in_process import encode, run_node

CAPTIONS, STEPS, SCALE = 16, 8, 2.0
POSITIVE = "positive"
# Inputs of ERG and of ERG Text Encoder, None for a branch of the empty prompt.
METHODS = {
    "CFG": ({}, None),
    "C-ERG (τc 0.01)": ({}, {"temperature": 0.01}),
    "I-ERG (τ 0.3, one layer)": ({"temperature": 0.3}, {"temperature": 1.0}),
    "I-ERG (τ 0.01, all layers)": ({"temperature": 0.01, "layers": "all"}, {"temperature": 1.0}),
}


def measure(quick: bool) -> dict:
    """rows: for each branch [layers][steps]; the positive one is the same in all methods in the first step alone."""
    model, clip, _ = run_node("EntropyGuidanceLoadDemo")
    rng = Random("attention entropy")
    captions = [sample_scene(rng, held_out=True).caption for _ in range(2 if quick else CAPTIONS)]
    methods = [*METHODS][: 2 if quick else None]
    rows = {}
    for name in methods:
        of_branch = _entropies(model, clip, captions, *METHODS[name])
        if POSITIVE not in rows:
            rows[POSITIVE] = of_branch[POSITIVE].values.tolist()
        rows[name] = of_branch["negative"].values.tolist()
    return {"captions": len(captions), "steps": STEPS, "scale": SCALE, "rows": rows}


def _entropies(model, clip, captions: list[str], erg: dict, encoder: dict | None) -> dict:
    positive = encode(clip, captions)
    if encoder is None:
        negative = encode(clip, [""])
    else:
        negative = encode(run_node("EntropyGuidanceCLIP", clip=clip, **encoder)[0], captions)
    if erg:
        (model,) = run_node("EntropyGuidanceERG", model=model, **erg)
    recorded, recorder = run_node("EntropyGuidanceRecord", model=model)
    noise = {"samples": torch.zeros(len(captions), 4, 16, 16)}
    (drawn,) = nodes.common_ksampler(recorded, 1, STEPS, SCALE, "euler", "simple", positive, negative, noise)
    return recorder.of(drawn["samples"]).entropy


def draw(found: dict, folder: Path) -> None:
    """A heat map for each branch, on one scale."""
    rows = found["rows"]
    figure, panels = plt.subplots(1, len(rows), figsize=(3.2 * len(rows), 3.8), sharey=True, layout="constrained")
    lowest = min(min(map(min, values)) for values in rows.values())
    for panel, (name, values) in zip(panels, rows.items()):
        title = "positive branch" if name == POSITIVE else f"weak branch,\n{name}"
        image = panel.imshow(values, cmap="cividis", clim=(lowest, 1), aspect="auto", interpolation="nearest")
        panel.set_title(title, fontsize=10)
        panel.set(xlabel="step", xticks=range(found["steps"]), xticklabels=range(1, found["steps"] + 1))
    panels[0].set_ylabel("attention layer, first on top")
    figure.colorbar(image, ax=list(panels), label="relative entropy")
    save(figure, "attention-entropy", folder)


if __name__ == "__main__":
    results.main("attention_entropy", __doc__, measure, draw)
