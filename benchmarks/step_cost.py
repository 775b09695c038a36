"""What ERG adds to a sampling step of CFG: time, peak memory, arithmetic and operators, beside core's PAG and NAG.

In a twin step the positive prompt is on both inputs; in a step of three conditions, the weak branch is a copy of the
positive beside a negative one. What they share is computed once. Arithmetic counts matrix products, convolutions and
attention.

The networks have the widths of the real ones, random weights, and fewer blocks where a real one would take a CPU minutes:
the same blocks on all sides, which alternate in one run.
"""

import argparse
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import torch
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm import tqdm

from . import in_process, results, small_networks
from .arithmetic import flops
from .in_process import run_node
from .one_step import prepared
from .small_networks.network import text

ROUNDS = 12
SIDES = {
    "ERG": lambda model: _erg(model),
    "ERG, all layers": lambda model: _erg(model, layers="all"),
    "ERG, flatness": lambda model: _erg(model, flatness=0.3),
    "ERG, K = 2": lambda model: _erg(model, iterations=2),
    "ERG, twin": lambda model: _erg(model),
    "ERG, twin, unshared": lambda model: _erg(model, share_trunk=False),
    "CFG + own ERG": lambda model: _erg(model),
    "core PAG": lambda model: run_node("PerturbedAttentionGuidance", model=model, scale=3.0)[0],
    "core NAG": lambda model: run_node("NAGuidance", model=model)[0],
}


@dataclass(frozen=True)
class Shape:
    """A network of a real one's width. network: whose small one it is made from. latent: without the batch dimension."""

    network: str
    blocks: str
    sizes: dict
    latent: tuple[int, ...]
    condition: tuple  # tokens, width, pooled width


UNET = {"model_channels": 320, "num_res_blocks": [1, 1, 1, 1], "channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1, "num_heads": 8,
        "context_dim": 768}  # fmt: skip
SDXL = {"model_channels": 320, "num_res_blocks": [1, 1, 1], "channel_mult": [1, 2, 4], "transformer_depth": [0, 1, 2],
        "transformer_depth_output": [0, 0, 1, 1, 2, 2], "transformer_depth_middle": 2, "num_head_channels": 64,
        "context_dim": 2048, "adm_in_channels": 2816}  # fmt: skip
MMDIT = {"depth": 24, "num_blocks": 6, "x_block_self_attn_layers": [0, 1, 2], "adm_in_channels": 2048, "context_size": 4096,
         "pos_embed_max_size": 64, "num_patches": 4096,
         "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 1536}},
         }  # fmt: skip
FLUX = {"hidden_size": 3072, "num_heads": 24, "axes_dim": [16, 56, 56], "depth": 1, "depth_single_blocks": 4,
        "context_in_dim": 4096, "vec_in_dim": 768}  # fmt: skip
WAN = {"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 5, "freq_dim": 256, "text_dim": 4096}
SHAPES = {
    "SD1.5": Shape("SD15", "1 of 2 in a level", UNET, (4, 32, 32), (77, 768, None)),
    "SDXL": Shape("SDXL", "8 of 70", SDXL, (4, 32, 32), (77, 2048, 1280)),
    "SD3.5 medium": Shape("SD3", "6 of 24", MMDIT, (16, 32, 32), (154, 4096, 2048)),
    "Flux": Shape("Flux", "5 of 57", FLUX, (16, 32, 32), (256, 4096, 768)),
    "Wan 2.1 1.3B": Shape("WAN21_T2V", "5 of 30", WAN, (16, 3, 32, 32), (512, 4096, None)),
}


def measure(names: list[str], rounds: int) -> dict[str, dict]:
    print(
        f"\nA step beside one of CFG: median ratio of {rounds} rounds in which all sides alternate (interquartile range), "
        "peak memory and arithmetic as shares of CFG's, torch operators more than CFG's"
    )
    print(f"{'model':16}{'side':>20}{'CFG step':>12}{'time':>24}{'memory':>10}{'arithmetic':>12}{'operators':>12}")
    demo, clip, _ = run_node("EntropyGuidanceLoadDemo")
    prompts = tuple(
        run_node("CLIPTextEncode", clip=clip, text=t)[0] for t in ("a red circle left of a blue square", "")
    )
    rows = {"demo, 4 pictures": _compare("demo, 4 pictures", demo, prompts, torch.randn(4, 4, 16, 16), rounds)}
    for name in names:
        shape = SHAPES[name]
        model = small_networks.build(shape.network, **shape.sizes)
        condition, generator = text(*shape.condition), torch.Generator().manual_seed(1)
        conditions = condition(generator), condition(generator)
        rows[name] = _compare(name, model, conditions, torch.randn(1, *shape.latent, generator=generator), rounds)
    return rows


def _erg(model, **inputs):
    return run_node("EntropyGuidanceERG", model=model, **inputs)[0]


def _compare(name: str, model, conditions, latent, rounds: int) -> dict[str, dict]:
    positive, negative = conditions
    of_side = {"ERG, twin": (positive,) * 2, "ERG, twin, unshared": (positive,) * 2}
    of_side["CFG + own ERG"] = positive, positive, negative  # without a guider, the second one is the weak branch
    with ExitStack() as stack:

        def step(model, of=conditions):
            prepared_step = stack.enter_context(prepared(model, of, latent))
            return lambda: prepared_step.guided(4.0) if len(of) == 2 else prepared_step.predictions()

        sides = {side: step(make(model), of_side.get(side, conditions)) for side, make in SIDES.items()}
        return _measure(name, {"CFG": step(model)} | sides, rounds)


def _measure(name: str, steps: dict, rounds: int) -> dict[str, dict]:
    """For each side its time (the ends are quartiles), memory and arithmetic in CFG's, and operators beyond CFG's."""
    for _ in range(2):  # the first run learns the layers, and tries what is shared
        for step in steps.values():
            step()
    memory = {side: peak_memory(step) for side, step in steps.items()}
    operators = {side: _operators(step) for side, step in steps.items()}
    arithmetic = {side: flops(step) for side, step in steps.items()}
    times = {side: [] for side in steps}
    for _ in tqdm(range(rounds), desc=name, leave=False):
        for side, step in steps.items():
            times[side].append(seconds(step))
    row: dict[str, dict] = {"CFG": {"ms": 1000 * median(times["CFG"])}}
    for side in SIDES:
        ratios = sorted(b / a for a, b in zip(times["CFG"], times[side]))
        low, middle, high = ratios[len(ratios) // 4], median(ratios), ratios[3 * len(ratios) // 4]
        row[side] = {
            "time": {"value": middle, "low": low, "high": high},
            "memory": memory[side] / memory["CFG"],
            "arithmetic": arithmetic[side] / arithmetic["CFG"],
            "operators": operators[side] - operators["CFG"],
        }
        print(
            f"{name:16}{side:>20}{row['CFG']['ms']:>9.0f} ms{f'{middle:.3f} ({low:.3f}-{high:.3f})':>24}"
            f"{row[side]['memory']:>10.3f}{row[side]['arithmetic']:>12.3f}{row[side]['operators']:>+12}",
            flush=True,
        )
    return row


class _CountOperators(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def _operators(step) -> int:
    with _CountOperators() as counter:
        step()
    return counter.count


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help="two rounds of the demo model, kept out of the repository")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.models, chosen.rounds = [], 2
    in_process.load_nodes()
    with torch.inference_mode():
        rows = measure(chosen.models, chosen.rounds)
    results.write("step_cost", {"rounds": chosen.rounds, "rows": rows}, chosen.quick)
