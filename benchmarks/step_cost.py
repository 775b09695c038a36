"""What ERG adds to a sampling step of CFG: time and peak memory, both sides alternating in one run."""

from statistics import median
from time import perf_counter

import torch
from torch.profiler import profile
from tqdm import tqdm

from . import random_models
from .in_process import run_node
from .one_step import prepared

PAIRS = 30


def models() -> dict[str, tuple]:
    """For each row its MODEL, CONDITIONINGs and latent."""
    demo, clip, _ = run_node("EntropyGuidanceLoadDemo")
    texts = ("a red circle left of a blue square", "")
    encoded = tuple(run_node("CLIPTextEncode", clip=clip, text=text)[0] for text in texts)
    big = random_models.build("SD3", depth=8, num_blocks=8, x_block_self_attn_layers=[])
    return {
        "demo model, 4 pictures": (demo, encoded, torch.randn(4, 4, 16, 16)),
        "MMDiT depth 8, 64×64 latent": (big, random_models.conditions(tokens=77), random_models.latent(big, 64)),
    }


def measure() -> None:
    print(f"\nStep time and peak memory, ERG / CFG: median ratio of {PAIRS} alternating pairs (interquartile range)")
    print(f"{'model':32}{'layers':>10}{'CFG step':>12}{'time ratio':>24}{'memory ratio':>14}")
    for name, (model, conditions, latent) in models().items():
        for layers in ("40%-50%", "all"):
            erg = run_node("EntropyGuidanceERG", model=model, layers=layers)[0]
            times, memory = _compare(model, erg, conditions, latent, name)
            ratios = sorted(b / a for a, b in times)
            low, high = ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]
            spread = f"{median(ratios):.3f} ({low:.3f}-{high:.3f})"
            cfg = f"{1000 * median(a for a, _ in times):.0f} ms"
            print(f"{name:32}{layers:>10}{cfg:>12}{spread:>24}{memory[1] / memory[0]:>14.3f}")


def _compare(model, erg, conditions, latent, name) -> tuple[list[tuple[float, float]], list[int]]:
    with prepared(model, conditions, latent) as ordinary, prepared(erg, conditions, latent) as rectified:
        sides = (ordinary, rectified)
        for side in sides:  # the first run learns the layers
            side()
        memory = [peak_memory(side) for side in sides]
        times = [tuple(map(seconds, sides)) for _ in tqdm(range(PAIRS), desc=name, leave=False)]
    return times, memory


def seconds(step) -> float:
    start = perf_counter()
    step()
    _synchronize()
    return perf_counter() - start


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory(step) -> int:
    """Most bytes that a step holds at once beyond what was held before it."""
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    with profile(profile_memory=True) as recorded:
        step()
    events = sorted(
        (event.start_ns(), event.nbytes())
        for event in recorded.profiler.kineto_results.events()
        if event.name() == "[memory]"
    )
    held = peak = 0
    for _, change in events:
        held += change
        peak = max(peak, held)
    return peak
