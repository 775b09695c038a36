"""What each input of Guidance Score, Guided DDPM Sampler and Apply Classifier Guidance does, the others as they are:
`python -m benchmarks.class_sensitivity`.

On the class-conditional demo model, as benchmarks.class_conditional draws it; Apply Classifier Guidance with Euler and as many
steps. The score is the node's own, the DDPM sampler's scale and variance those that all divergences took there. Pictures and noise
are those of no table, since defaults follow from this; batches that were drawn are kept. Writes
docs/results/class_sensitivity.json and docs/inputs-of-classifiers.png and .svg.
"""

import argparse
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from . import in_process, results
from .class_bench import BATCH, Setting
from .class_conditional import FULL, QUICK, Job, Size, run, seen, start
from .class_measures import Eyes, Seen
from .density_coverage import coverage, density, within_balls
from .in_process import defaults_of
from .jackknife import compared
from .judge import frechet
from .sensitivity.figures import input_panels

SEED = 5  # of the pictures; those of real ones are others
REAL = 1008
LITTLE = replace(QUICK, folder=results.QUICK / "class_sensitivity")
SCORE, DDPM, APPLY = "Guidance Score", "Guided DDPM Sampler", "Apply Classifier Guidance"
NODES = {SCORE: "EntropyGuidanceScore", DDPM: "EntropyGuidanceDDPMSampler", APPLY: "EntropyGuidanceApply"}
SCALE = 4.0  # of the DDPM sampler
Values = dict[str, dict[str, tuple]]  # of each node's inputs
VALUES: Values = {
    SCORE: {
        "divergence": ("none", "reverse_kl", "forward_kl", "jensen_shannon"),
        "divergence_weight": (0.5, 1.0, 2.0, 4.0),
        "target_confidence": (0.5, 0.9, 0.99),
        "joint_temperature": (0.5, 1.0, 2.0),
        "marginal_temperature": (0.0, 0.25, 0.5, 1.0),
        "entropy_weight": (0.0, 0.2, 1.0),
        "softplus_beta": (0.0, 1.0, 3.0, 10.0),
    },
    DDPM: {
        "scale": (1.0, 2.0, 4.0, 8.0),
        "gamma": (0.0, 0.3, 0.6),
        "tilt": (-0.5, -0.2, 0.0, 0.2),
        "variance": ("small", "large", "learned"),
    },
    APPLY: {
        "scale": (0.1, 0.2, 0.3, 0.5, 1.0),
        "every": (1, 2, 4, 8),
        "tilt": (-0.5, -0.2, 0.0, 0.2),
    },
}
BASE = "base"
Point = tuple[str, ...]  # node, input, value; node, BASE for what the inputs are changed of; or a node without guidance


def settings(values: Values) -> dict[Point, Setting]:
    """Of each value of each input, of each node's base, and without guidance."""
    score = {name: value for name, value in defaults_of(NODES[SCORE]).items() if name != "labels"}
    ddpm, apply = Setting(SCALE, score), Setting(score=score, apply={})
    bases = {SCORE: ddpm, DDPM: ddpm, APPLY: apply}
    around = {(node, BASE): setting for node, setting in bases.items()}
    none = {(SCORE,): Setting(), (DDPM,): Setting(), (APPLY,): Setting(apply={"scale": 0.0})}
    points = {
        (node, name, str(value)): _with(bases[node], node, name, value)
        for node, inputs in values.items()
        for name, tried in inputs.items()
        for value in tried
    }
    return none | around | points


def _with(base: Setting, node: str, name: str, value) -> Setting:
    if node == SCORE:
        return replace(base, score={**base.score, name: value})
    if node == APPLY:
        return replace(base, apply={**base.apply, name: value})
    return replace(base, **{name: value})


def of(real: Seen, drawn: Seen) -> Callable[[np.ndarray], dict[str, float]]:
    """The measures of some of the drawn pictures, again and again."""
    near, right = within_balls(real.features, drawn.features), (drawn.told == drawn.asked).double()

    def measures(rows: np.ndarray) -> dict[str, float]:
        return {
            "accuracy": right[rows].mean().item(),
            "Fréchet": frechet(real.features, drawn.features[rows]),
            "density": density(near[:, rows]),
            "coverage": coverage(near[:, rows]),
        }

    return measures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=12, help=f"of {BATCH} pictures, for each value")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--quick", action="store_true", help="a few pictures of six values, in a minute; not into docs")
    options = parser.parse_args()
    size, values = (LITTLE, _few(VALUES)) if options.quick else (FULL, VALUES)
    if options.quick:
        options.batches, options.workers = 1, 1
        shutil.rmtree(size.folder, ignore_errors=True)
    in_process.load_nodes()
    eyes = size.eyes()  # the judge is trained where it is not there, by one process alone
    rows = measured(settings(values), eyes, size, options)
    found = {
        "steps": size.steps, "pictures": options.batches * BATCH, "real": REAL, "scale of the sampler": SCALE,
        "defaults": {node: {name: str(value) for name, value in defaults_of(NODES[node]).items()} for node in NODES},
        "none": {node: rows[node,] for node in NODES}, "base": {node: rows[node, BASE] for node in NODES},
        "rows": {
            node: {name: {str(value): rows[node, name, str(value)] for value in tried} for name, tried in inputs.items()}
            for node, inputs in values.items()
        },
    }  # fmt: skip
    results.write("class_sensitivity", found, options.quick)
    draw(found, results.folder(options.quick))


def _few(values: Values) -> Values:
    """Two of each node's first input."""
    return {node: {name: tried[:2] for name, tried in [*inputs.items()][:1]} for node, inputs in values.items()}


def measured(
    points: dict[Point, Setting], eyes: Eyes, size: Size, options: argparse.Namespace
) -> dict[Point, dict[str, dict[str, float]]]:
    """Each point's measures, and how far they are above those of its node's base."""
    jobs = (Job(setting, SEED, n, size) for n in range(options.batches) for setting in points.values())
    different = {job.file: job for job in jobs}  # a base is the setting of one value of each of its inputs
    with ProcessPoolExecutor(options.workers, get_context("spawn"), start, (size,)) as workers:
        run([*different.values()], workers, "drawing")
    real = eyes.real(REAL, seed=6)
    measures = {point: of(real, seen(setting, SEED, options.batches, size)) for point, setting in points.items()}
    rows = {}
    for node in NODES:
        of_node = {point: measure for point, measure in measures.items() if point[0] == node}
        rows |= compared(of_node, np.arange(options.batches * BATCH), (node, BASE))
    return rows


def draw(found: dict, folder: Path) -> None:
    """The figure; Fréchet distances as shares of those without guidance, so that all measures share an axis."""
    share = "Fréchet, share of no guidance's"

    def shared(node: str, row: dict) -> dict:
        whole = found["none"][node]["Fréchet"]["value"]
        return {**row, share: {name: value / whole for name, value in row["Fréchet"].items()}}

    rows = {
        node: {name: {value: shared(node, row) for value, row in of.items()} for name, of in inputs.items()}
        for node, inputs in found["rows"].items()
    }
    none = {node: shared(node, row) for node, row in found["none"].items()}
    bars = f"95 % of the difference from the setting that the others are changed of (the sampler's: scale {SCALE:g}, learned variance)"
    measures = ("accuracy", "coverage", share)
    input_panels(rows, none, found["defaults"], measures, bars, "inputs-of-classifiers", folder)


if __name__ == "__main__":
    main()
