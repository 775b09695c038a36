"""The vanishing gradient: `python -m benchmarks.class_gradients`, a minute on one core.

On samplings of the class-conditional demo model without guidance: the norm of each score's gradient at the predicted
clean picture, and how sure the classifier is of the class that is drawn. Writes docs/results/class_gradients.json and
docs/class-gradients.png and .svg.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

from . import in_process, results
from .class_bench import BATCH, CLEAN, STEPS, Setting, classifier, draw, model
from .earlier_scores import MA2023, PLAIN
from .figure_style import LINES, save
from .in_process import pack_module, run_node

BATCHES = 4
SCORES = {
    "log p(y | x̂0)": (CLEAN, PLAIN),
    "ma2023": (CLEAN, MA2023),
    "reverse KL": (CLEAN, {**MA2023, "divergence": "reverse_kl"}),
    "forward KL": (CLEAN, {**MA2023, "divergence": "forward_kl"}),
    "Jensen-Shannon": (CLEAN, {**MA2023, "divergence": "jensen_shannon"}),
    "log p, Smooth-ECE": ("Smooth-ECE", PLAIN),
    "log p, entropy-aware": ("entropy-aware", PLAIN),
}


class Trace:
    """A sampler_post_cfg_function that looks and changes nothing. rows: a dictionary for each evaluation."""

    def __init__(self, labels: str):
        self.rows: list[dict[str, torch.Tensor]] = []
        wing = pack_module("nodes.classifiers.score_gradient")
        self.gradients = {
            name: wing.score_gradient(
                run_node("EntropyGuidanceScore", classifier=classifier(of), labels=labels, **inputs)[0], model(), None
            )
            for name, (of, inputs) in SCORES.items()
        }

    def __call__(self, args: dict) -> torch.Tensor:
        row = {}
        for name, gradient in self.gradients.items():
            with gradient:
                slope, log_p = gradient(args["input"], args["denoised"], args["sigma"], args["model"])
            row[name] = torch.stack([slope.flatten(1).norm(dim=1), log_p.exp()])
        self.rows.append(row)
        return args["denoised"]


def trace() -> dict[str, dict[str, list[float]]]:
    """For each score and step: median and lowest tenth of the norms, and the mean of p(y | x̂0)."""
    found = {name: [] for name in SCORES}
    for number in range(BATCHES):
        watched = Trace(",".join(str(i % 18) for i in range(BATCH)))
        patched = model().clone()
        patched.set_model_sampler_post_cfg_function(watched)
        draw(Setting(), number, seed=5, patched=patched)
        for name in SCORES:
            found[name].append(torch.stack([row[name] for row in watched.rows]))
    result = {}
    for name, parts in found.items():
        norms, sure = torch.cat(parts, -1).unbind(1)  # [steps, pictures] each
        result[name] = {
            "median": norms.median(1).values.tolist(),
            "lowest tenth": norms.quantile(0.1, 1).tolist(),
            "p(y | x̂0)": sure.mean(1).tolist(),
        }
    return result


def draw_figure(found: dict, folder: Path) -> None:
    figure, (sizes, sure) = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
    for (name, lines), (colour, mark) in zip(found["rows"].items(), LINES, strict=True):
        sizes.plot(lines["median"], color=colour, marker=mark, markersize=4, label=name)
        sizes.plot(lines["lowest tenth"], color=colour, linestyle=":")
        if name.startswith("log p"):
            sure.plot(lines["p(y | x̂0)"], color=colour, marker=mark, markersize=4, label=name)
    sizes.set(xlabel="step", ylabel="norm of the gradient at x̂0\n(dotted: lowest tenth)", yscale="log")
    sure.set(xlabel="step", ylabel="mean p(y | x̂0)", ylim=(0, None))
    for panel in (sizes, sure):
        panel.legend(fontsize=9)
    save(figure, "class-gradients", folder)


def main() -> None:
    in_process.load_nodes()
    result = trace()
    found = {"steps": STEPS, "pictures": BATCHES * BATCH, "rows": result}
    results.write("class_gradients", found)
    draw_figure(found, results.folder())
    for name, lines in result.items():
        first, *_, last = zip(lines["median"], lines["lowest tenth"], lines["p(y | x̂0)"])
        print(f"{name:22} first step {first}, last {last}")


if __name__ == "__main__":
    main()
