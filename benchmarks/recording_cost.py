"""What Record Guidance adds to a sampling: `python -m benchmarks.recording_cost`.

A sampling with the record and one without, in turn, in one run; the ratio of each pair. What a record costs at the end of a
sampling, once, is in it. Each pair runs at another depth of calls: Python maps memory anew where calls cross the end of a piece
of its stack, which costs a small network up to 7 % wherever that happens to be, with a record and without.
"""

import argparse
from functools import partial
from statistics import median

import torch
from tqdm import tqdm

import nodes

from . import in_process, small_networks
from .in_process import run_node
from .small_networks.network import text
from .step_cost import SHAPES, seconds

PAIRS = 12
STEPS = 20


def measure(names=("demo", "SD1.5"), pairs: int = PAIRS, steps: int = STEPS) -> None:
    print(
        f"\nA sampling of {steps} steps with ERG: recorded / not recorded, median of {pairs} pairs (interquartile range)"
    )
    for name in names:
        model, positive, negative, latent = _demo() if name == "demo" else _shape(name)
        model = run_node("EntropyGuidanceERG", model=model)[0]
        recorded = run_node("EntropyGuidanceRecord", model=model)[0]

        def draw(model, conditions=(positive, negative), latent=latent):
            samples = {"samples": latent}
            nodes.common_ksampler(model, 1, steps, 2.0, "euler", "simple", *conditions, samples)

        for side in (model, recorded):  # learns the layers, and tries what is shared
            draw(side)
        ratios = []
        for turn in tqdm(range(pairs), desc=name, leave=False):
            sides = (model, recorded) if turn % 2 else (recorded, model)
            times = {side: seconds(partial(_at_depth, 5 * turn, draw, side)) for side in sides}
            ratios.append(times[recorded] / times[model])
        ratios.sort()
        print(f"{name:16}{median(ratios):7.3f} ({ratios[pairs // 4]:.3f}-{ratios[3 * pairs // 4]:.3f})", flush=True)


def _at_depth(depth: int, call, *args):
    return _at_depth(depth - 1, call, *args) if depth else call(*args)


def _demo() -> tuple:
    model, clip, _ = run_node("EntropyGuidanceLoadDemo")
    prompts = [run_node("CLIPTextEncode", clip=clip, text=t)[0] for t in ("a red circle left of a blue square", "")]
    return model, *prompts, torch.zeros(4, 4, 16, 16)


def _shape(name: str) -> tuple:
    shape, generator = SHAPES[name], torch.Generator().manual_seed(1)
    condition = text(*shape.condition)
    model = small_networks.build(shape.network, **shape.sizes)
    return model, condition(generator), condition(generator), torch.zeros(1, *shape.latent)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=["demo", *SHAPES], default=["demo", "SD1.5"])
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--steps", type=int, default=STEPS)
    chosen = parser.parse_args()
    in_process.load_nodes()
    with torch.inference_mode():
        measure(chosen.models, chosen.pairs, chosen.steps)
