"""How much the first step's prediction varies under guidance: `python -m benchmarks.initial_velocity`, some minutes.

Figure 5 of https://arxiv.org/abs/2504.13987. The guided velocity v at pure noise x, for noises x and captions c: *marginal*
is its variance over both, *conditional* over the noises of one caption, on average over captions; each a mean over the
latent's entries. The noise itself is part of a flow's velocity (v = x − x̂0), so that the variances are those of x̂0. Writes
docs/results/initial_velocity.json, docs/initial-velocity.png and .svg.
"""

from dataclasses import replace
from pathlib import Path
from random import Random

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from demo.scenes import sample_scene

from . import in_process, results
from .demo_models import COMMITTED
from .figure_style import LINES, save
from .text_to_image.drawing import SAME, Setting, predict

CAPTIONS, NOISES = 32, 16
SCALES = (1.0, 1.5, 2.0, 3.0, 4.0)
ERG = {"temperature": 0.3, "layers": "40%-50%"}
CLIP = {"temperature": 0.01, "layers": "all"}
METHODS = {
    "CFG": Setting(),
    "C-ERG": Setting(negative=SAME, clip=CLIP),
    "I-ERG": Setting(negative=SAME, erg=ERG),
    "ERG": Setting(negative=SAME, erg=ERG, clip=CLIP),
}


def measure(quick: bool) -> dict:
    in_process.quiet()
    captions = 2 if quick else CAPTIONS
    regimes = COMMITTED[: 1 if quick else None]
    return {"captions": captions, "noises": NOISES, "rows": {regime: variances(regime, captions) for regime in regimes}}


def draw(found: dict, folder: Path) -> None:
    """Marginal and conditional variance over scales."""
    regimes = found["rows"]
    figure, panels = plt.subplots(2, len(regimes), figsize=(6.5 * len(regimes), 7), squeeze=False, layout="constrained")
    for column, (regime, methods) in enumerate(regimes.items()):
        for panel, kind in zip(panels[:, column], ("marginal", "conditional")):
            for (method, scales), (colour, mark) in zip(methods.items(), LINES):
                values = [variances[kind] for variances in scales.values()]
                panel.plot([*map(float, scales)], values, color=colour, marker=mark, label=method)
            panel.set(xlabel="scale w (1: no guidance)", ylabel=f"{kind} variance of x̂0")
            panel.set_title(regime, loc="left")
    panels[0, 0].legend()
    save(figure, "initial-velocity", folder)


def variances(regime: str, count: int = CAPTIONS) -> dict[str, dict[float, dict[str, float]]]:
    """For each method and scale the marginal and the conditional variance, over `count` captions."""
    rng = Random("initial velocity")
    captions = [sample_scene(rng, held_out=True).caption for _ in range(count)]
    return {
        name: {scale: _variances(regime, replace(setting, cfg=scale), captions) for scale in SCALES}
        for name, setting in METHODS.items()
    }


def _variances(regime: str, setting: Setting, captions: list[str]) -> dict[str, float]:
    predictions = torch.stack([_of_caption(regime, setting, caption, i) for i, caption in enumerate(captions)])
    return {
        "marginal": predictions.flatten(0, 1).var(0).mean().item(),
        "conditional": predictions.var(1).mean().item(),
    }


def _of_caption(regime: str, setting: Setting, caption: str, seed: int) -> Tensor:
    return predict(regime, setting, [caption] * NOISES, seed)


if __name__ == "__main__":
    results.main("initial_velocity", __doc__, measure, draw)
