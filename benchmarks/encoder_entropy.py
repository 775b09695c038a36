"""What ERG Text Encoder's temperature does inside the demo model's text encoder: `python -m benchmarks.encoder_entropy`, minutes.

For each τc the relative entropy of the encoder's self-attention by layer (0: one word alone, 1: everywhere alike); how far the
encoding of a caption moves, as a share of its distance to another caption's; and how far the model's first x̂0, from pure
noise, moves, as a share of its distance to the empty prompt's, which is what CFG leads away from, and the cosine of the two ways.
Means over held-out captions. Then what C-ERG draws where its first step of guidance is as long as CFG's at scale 2, by the measures
of benchmarks.text_to_image. Writes docs/results/encoder_entropy.json, docs/encoder-entropy.png and .svg.
"""

import argparse
import inspect
from collections import defaultdict
from functools import wraps
from pathlib import Path
from random import Random

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from demo.scenes import sample_scene

from . import results
from .figure_style import LINES, save
from .in_process import encode, pack_module, run_node
from .text_to_image.drawing import SAME, Setting, predict, regime
from .text_to_image.kept import BATCH
from .text_to_image.rows import measured, processes

REGIME, STEPS = "demo model", 8
CAPTIONS = 32
TEMPERATURES = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
CFG = 2.0
AS_STRONG = (0.01, 0.03, 0.1)  # above, it would take scales in the hundreds


@torch.inference_mode()
def inside(captions: list[str]) -> dict[str, dict]:
    """By τc: relative entropies by layer, and how far the encoding and the prediction move."""
    ordinary, positive = _encoding(1.0, captions)[0], predict(REGIME, Setting(), captions, 0)
    to_another = _distance(ordinary, ordinary.roll(1, 0))
    empty = predict(REGIME, Setting(0.0), captions, 0)
    rows = {}
    for temperature in TEMPERATURES:
        encoding, entropies = _encoding(temperature, captions)
        weak = predict(REGIME, Setting(0.0, SAME, clip={"temperature": temperature}), captions, 0)
        ways = [(other - positive).flatten(1) for other in (weak, empty)]
        rows[str(temperature)] = {
            "entropy": entropies,
            "encoding": (_distance(encoding, ordinary) / to_another).mean().item(),
            "prediction": (_distance(weak, positive) / _distance(empty, positive)).mean().item(),
            "cosine": torch.cosine_similarity(*ways).mean().item(),
        }
    return rows


def as_strong_as_cfg(rows: dict[str, dict]) -> dict[str, Setting]:
    """C-ERG at the scales at which the first step's guidance is as long as CFG's, beside that and no guidance."""
    of_cfg = {"none": Setting(), f"CFG, w {CFG:g}": Setting(CFG)}
    scales = {τc: 1 + (CFG - 1) / rows[str(τc)]["prediction"] for τc in AS_STRONG}
    return of_cfg | {f"C-ERG, τc {τc:g}": Setting(w, SAME, clip={"temperature": τc}) for τc, w in scales.items()}


def _distance(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).flatten(1).norm(dim=1)


def _encoding(temperature: float, captions: list[str]) -> tuple[Tensor, list[float]]:
    """What a model is told of captions, and the relative entropy of each layer of the encoder while it read them."""
    (clip,) = run_node("EntropyGuidanceCLIP", clip=regime(REGIME)[1], temperature=temperature)
    found: dict[str, list[float]] = defaultdict(list)
    (paths,) = pack_module("nodes.attention.text_encoder")._encoders(clip.cond_stage_model).values()
    clip = clip.clone()
    for path in paths:
        name = f"{path}.forward"
        clip.patcher.add_object_patch(name, _listening(clip.patcher.get_model_object(name), found[path]))
    encoded = encode(clip, captions)[0][0]
    return encoded, [sum(found[path]) / len(found[path]) for path in paths]


def _listening(forward, found: list[float]):
    """`forward` of an attention layer, which notes the mean relative entropy of each of its calls."""
    signature = inspect.signature(forward)
    relative_entropy = pack_module("guidance_core.guidance_measures").relative_entropy

    @wraps(forward)
    def listening(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        attention = bound.arguments["optimized_attention"]

        def noting(q, k, v, heads, mask=None, *rest, **more):
            of_heads = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k))
            logits = next(of_heads) @ next(of_heads).transpose(-1, -2) * (q.shape[-1] // heads) ** -0.5
            found.append(relative_entropy(logits, mask).mean().item())
            return attention(q, k, v, heads, mask, *rest, **more)

        bound.arguments["optimized_attention"] = noting
        return forward(*bound.args, **bound.kwargs)

    return listening


def draw(found: dict, folder: Path) -> None:
    """Entropies by layer for each τc, and both distances over τc."""
    rows = found["rows"]
    figure, (layers, distances) = plt.subplots(1, 2, figsize=(13, 4.2), layout="constrained")
    for (temperature, row), (colour, mark) in zip(rows.items(), LINES):
        layers.plot(row["entropy"], color=colour, marker=mark, label=f"τc {temperature}")
    layers.set(xlabel="layer of the text encoder", ylabel="relative entropy", xticks=range(len(row["entropy"])))
    figure.legend(*layers.get_legend_handles_labels(), loc="outside center left", fontsize=10)
    names = {"encoding": "encoding / another caption's", "prediction": "first prediction / the empty prompt's"}
    for (name, label), (colour, mark) in zip(names.items(), LINES):
        distances.plot([row[name] for row in rows.values()], color=colour, marker=mark, label=label)
    distances.set_xticks(range(len(rows)), [*rows])
    distances.set(xlabel="τc (1: no change)", ylabel="distance from τc 1", ylim=(0, None))
    distances.legend(fontsize=9)
    save(figure, "encoder-entropy", folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=18, help=f"of {BATCH} pictures, for each row")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--quick", action="store_true", help="little of everything, kept out of the repository")
    options = parser.parse_args()
    count, batches = (4, 1) if options.quick else (CAPTIONS, options.batches)
    rng = Random("encoder entropy")
    captions = [sample_scene(rng, held_out=True).caption for _ in range(count)]
    with processes(options.workers, options.quick) as workers:
        rows = inside(captions)
        settings = as_strong_as_cfg(rows)
        drawn = measured(
            workers, REGIME, settings, batches, STEPS, "drawing", baseline=f"CFG, w {CFG:g}", purpose="inputs"
        )
    found = {
        "captions": count, "rows": rows, "pictures": batches * BATCH, "baseline": f"CFG, w {CFG:g}",
        "scales": {name: setting.cfg for name, setting in settings.items()}, "drawn": drawn,
    }  # fmt: skip
    results.write("encoder_entropy", found, options.quick)
    draw(found, results.folder(options.quick))


if __name__ == "__main__":
    main()
