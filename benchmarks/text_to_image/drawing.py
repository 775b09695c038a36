"""One way of drawing a caption with the demo model, through ComfyUI's nodes and the pack's."""

from dataclasses import dataclass, replace
from functools import cache
from math import isclose

import torch
from torch import Tensor

from ..demo_models import EARLIER_ONE, with_weights_of
from ..in_process import encode, run_node
from . import rivals

EMPTY, SAME = "empty", "same"


@dataclass(frozen=True)
class Setting:
    """cfg: the sampler's, against `negative`: the empty prompt, or the same one once more, read by the text encoder of
    `clip`. Inputs of nodes, or None for none of it: erg (ERG), clip (ERG Text Encoder), cads (CADS), apg (core's APG).
    rival: inputs of rivals.add. guider: the scales of ERG Guider, whose weak branch is `negative`, beside an empty prompt as an
    artist's negative; cfg has no part in it. weak_model: the negative branch is that of the same network earlier in its training, text
    encoder and all (autoguidance)."""

    cfg: float = 1.0
    negative: str = EMPTY
    erg: dict | None = None
    clip: dict | None = None
    cads: dict | None = None
    apg: dict | None = None
    rival: dict | None = None
    weak_model: bool = False
    guider: dict | None = None

    @property
    def scale(self) -> float:
        """w, as the papers write it: what guides is w - 1 times the difference."""
        return self.cfg + (self.apg is not None)

    def at(self, scale: float) -> "Setting":
        """The same at another w."""
        return replace(self, cfg=scale if self.apg is None else apg_cfg(scale))


def apg_cfg(scale: float) -> float:
    """The sampler's cfg for core's APG at a w of its paper's. Core's node adds the whole (changed) difference cfg times, where CFG
    and the paper add it w - 1 times: with nothing changed, at cfg 2 it draws what CFG draws at 3. Not 1, which is without a
    negative branch to ComfyUI."""
    cfg = scale - 1
    return cfg + 1e-6 if isclose(cfg, 1) else cfg


@cache
def regime(name: str):
    """MODEL and CLIP."""
    return with_weights_of(name)


@cache
def decoder():
    """Laid out as a CPU convolves fastest: a picture's decoding takes as long as a dozen evaluations."""
    vae = run_node("EntropyGuidanceLoadDemo")[2]
    vae.first_stage_model.to(memory_format=torch.channels_last)
    return vae


@torch.inference_mode()
def draw(name: str, setting: Setting, captions: list[str], seed: int, steps: int) -> Tensor:
    """Pictures [B, 3, 128, 128] in 0..1 of captions, all empty where nothing is asked for. Settings share their noise."""
    sampled, _ = _sample(name, setting, captions, seed, _sigmas(name, steps))
    return decoder().decode(sampled["samples"]).movedim(-1, 1).float()


@torch.inference_mode()
def predict(name: str, setting: Setting, captions: list[str], seed: int) -> Tensor:
    """The guided x̂0 [B, 4, 16, 16] that the first step makes of pure noise."""
    _, predicted = _sample(name, setting, captions, seed, _sigmas(name, 8)[:2])
    return predicted["samples"]


def _sigmas(name: str, steps: int) -> Tensor:
    return run_node("BasicScheduler", model=regime(name)[0], scheduler="simple", steps=steps, denoise=1.0)[0]


def _sample(name: str, setting: Setting, captions: list[str], seed: int, sigmas: Tensor):
    """The latents, and the last x̂0."""
    model, encoder = regime(name)
    positive = encode(encoder, captions)
    return run_node(
        "SamplerCustomAdvanced",
        noise=run_node("RandomNoise", noise_seed=seed)[0],
        guider=_guider(name, setting, _guided(model, setting), positive, _negative(name, setting, captions, positive)),
        sampler=run_node("KSamplerSelect", sampler_name="euler")[0],
        sigmas=sigmas,
        latent_image={"samples": torch.zeros(len(captions), 4, 16, 16)},
    )


def _negative(name: str, setting: Setting, captions: list[str], positive: list) -> list:
    encoder = regime(EARLIER_ONE[name] if setting.weak_model else name)[1]
    if setting.negative == EMPTY:
        return encode(encoder, [""])
    if setting.weak_model:
        return encode(encoder, captions)
    if setting.clip is None:
        return positive
    return encode(run_node("EntropyGuidanceCLIP", clip=encoder, **setting.clip)[0], captions)


def _guided(model, setting: Setting):
    for inputs, node in (
        (setting.cads, "EntropyGuidanceCADS"),
        (setting.erg, "EntropyGuidanceERG"),
        (setting.apg, "APG"),
    ):
        if inputs is not None:
            (model,) = run_node(node, model=model, **inputs)
    return model if setting.rival is None else rivals.add(model, **setting.rival)


def _guider(name: str, setting: Setting, model, positive, negative):
    if setting.weak_model:
        weak, _ = regime(EARLIER_ONE[name])
        return run_node(
            "DualModelGuider", model=model, model_negative=weak, positive=positive, negative=negative, cfg=setting.cfg
        )[0]
    if setting.guider is not None:
        empty = encode(regime(name)[1], [""])
        return run_node(
            "EntropyGuidanceGuider", model=model, positive=positive, weak=negative, negative=empty, **setting.guider
        )[0]
    return run_node("CFGGuider", model=model, positive=positive, negative=negative, cfg=setting.cfg)[0]
