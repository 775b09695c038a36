"""The vanishing gradient on latents, before and after calibration: `python -m benchmarks.gradient_norm`.

On samplings of the demo model without guidance: the norm of ∇ log p(y | x̂0) with respect to x̂0 at each step, by the demo
classifier as it came and fine-tuned with each objective of benchmarks.calibration, which are trained where they are not there
yet (seed 0). Writes docs/results/gradient_norm.json and docs/gradient-norm.png and .svg; a quarter of an hour on one core.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

import nodes
from demo.train_classifier import CLASSES

from . import in_process, results
from .calibration import AS_IT_CAME, FOLDER, OBJECTIVES, Calibrations, name_of
from .earlier_scores import PLAIN
from .figure_style import LINES, save
from .guided_bench import STEPS, classifier, demo
from .in_process import pack_module, run_node

PICTURES = 36
SEED = 0  # of the calibrations


def trace() -> dict[str, dict[str, list[float]]]:
    """For each classifier and step: median and lowest tenth of the norms over the same pictures, and the mean of p(y | x̂0)."""
    unguided, empty, vae = demo()
    labels = ",".join(str(i % len(CLASSES)) for i in range(PICTURES))
    gradients = {}
    for objective in (AS_IT_CAME, *OBJECTIVES):
        (score,) = run_node(
            "EntropyGuidanceScore", classifier=classifier(name_of(objective, SEED)), labels=labels, **PLAIN
        )
        wing = pack_module("nodes.classifiers.score_gradient")
        gradients[objective] = wing.score_gradient(score, unguided, vae, "full")
    rows = {name: {"median": [], "lowest tenth": [], "p(y | x̂0)": []} for name in gradients}

    def look(args: dict) -> torch.Tensor:
        for name, gradient in gradients.items():
            slope, log_p = gradient(args["input"], args["denoised"], args["sigma"], args["model"])
            norms = slope.flatten(1).norm(dim=1)
            rows[name]["median"].append(norms.median().item())
            rows[name]["lowest tenth"].append(norms.quantile(0.1).item())
            rows[name]["p(y | x̂0)"].append(log_p.exp().mean().item())
        return args["denoised"]

    model = unguided.clone()
    model.set_model_sampler_post_cfg_function(look)
    latent = {"samples": torch.zeros(PICTURES, 4, 16, 16)}
    nodes.common_ksampler(model, 0, STEPS, 1.0, "euler", "simple", empty, empty, latent)
    return rows


def draw_figure(found: dict, folder: Path) -> None:
    figure, panel = plt.subplots(figsize=(8, 5), layout="constrained")
    for (name, lines), (colour, mark) in zip(found["rows"].items(), LINES):
        panel.plot(lines["median"], color=colour, marker=mark, markersize=5, label=name)
        panel.plot(lines["lowest tenth"], color=colour, marker=mark, markersize=3, linestyle=":")
    panel.set(xlabel="step", ylabel="norm of ∇ log p(y | x̂0)\n(dotted: lowest tenth)", yscale="log")
    panel.legend(fontsize=9)
    save(figure, "gradient-norm", folder)


def main() -> None:
    in_process.load_nodes()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        Calibrations().train(SEED)
        rows = trace()
    found = {"steps": STEPS, "pictures": PICTURES, "seed": SEED, "rows": rows}
    results.write("gradient_norm", found)
    draw_figure(found, results.folder())


if __name__ == "__main__":
    main()
