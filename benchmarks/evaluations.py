"""How many evaluations of the network a step takes on average: `python -m benchmarks.evaluations`.

Counted, not timed: the multiplications of a whole sampling of the demo model (Euler, 20 steps, default layers) beside those of
one without guidance. No processor, batch size or neighbour changes it.
"""

import torch

import nodes

from . import results
from .arithmetic import flops
from .in_process import run_node

STEPS = 20
MIDDLE_HALF = {"start_percent": 0.25, "end_percent": 0.75, "outside": "no guidance"}
ROWS = {
    "no guidance": (1.0, {}),
    "CFG": (4.0, {}),
    "ERG on the negative branch": (2.0, {"scale": 0.0}),
    "ERG on the negative branch, middle half": (2.0, MIDDLE_HALF),
    "ERG of its own at cfg 1": (1.0, {"scale": 1.0}),
    "ERG of its own at cfg 1, middle half": (1.0, {"scale": 1.0, **MIDDLE_HALF}),
    "ERG of its own at cfg 1, share_trunk off": (1.0, {"scale": 1.0, "share_trunk": False}),
    "CFG + ERG of its own": (4.0, {"scale": 1.0}),
    "CFG + ERG of its own, middle half": (4.0, {"scale": 1.0, **MIDDLE_HALF}),
    "core PAG at cfg 1": (1.0, "PerturbedAttentionGuidance"),
    "CFG + core PAG": (4.0, "PerturbedAttentionGuidance"),
    "core NAG at cfg 1": (1.0, "NAGuidance"),
}


def measure(quick: bool) -> dict:
    steps = 4 if quick else STEPS
    model, clip, _ = run_node("EntropyGuidanceLoadDemo")
    prompts = [run_node("CLIPTextEncode", clip=clip, text=t)[0] for t in ("a red circle left of a blue square", "")]
    print(f"\nEvaluations of the network a step, on average over {steps} steps")
    one, rows = _multiplications(model, prompts, 1.0, steps), {}
    for name, (cfg, change) in ROWS.items():
        rows[name] = _multiplications(_changed(model, change), prompts, cfg, steps) / one
        print(f"{name:44}{rows[name]:6.2f}", flush=True)
    return {"steps": steps, "rows": rows}


def _changed(model, change: dict | str):
    if isinstance(change, str):
        return run_node(change, model=model)[0]
    return run_node("EntropyGuidanceERG", model=model, **change)[0] if change else model


def _multiplications(model, prompts: list, cfg: float, steps: int) -> int:
    """Of a sampling; not its first, in which ERG learns the network."""

    def draw():
        nodes.common_ksampler(model, 1, steps, cfg, "euler", "simple", *prompts, {"samples": torch.zeros(1, 4, 16, 16)})

    draw()
    return flops(draw)


if __name__ == "__main__":
    results.main("evaluations", __doc__, measure)
