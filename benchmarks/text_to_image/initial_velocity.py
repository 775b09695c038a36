"""How much the first step's prediction varies under guidance: figure 5 of https://arxiv.org/abs/2504.13987.

The guided velocity v at pure noise x, for noises x and captions c: *marginal* is its variance over both, *conditional* over
the noises of one caption, on average over captions; each a mean over the latent's entries. The noise itself is part of a
flow's velocity (v = x − x̂0), so that the variances are those of x̂0. Less than the data's is what over-guidance takes away.
"""

from dataclasses import replace
from random import Random

import torch
from torch import Tensor

from demo.scenes import sample_scene

from .drawing import SAME, Setting, predict

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
