"""What classifier guidance does to the demo model: `python -m benchmarks.classifier_guidance`.

Pictures without a prompt, steered to the colour of their largest shape, the colours in turn, all methods from the
same noise. Each method first tries its scales on a few pictures; the one with the lowest joint Fréchet distance is
then measured. Three hours on one core; finished rows are kept, so that an interrupted run goes on, and several
processes can share the methods.

accuracy: the largest shape has the colour that was asked for, read by demo/scene_checker.py. clean: share of shapes
that overlap their ideal by 90 % or more. Fréchet distance, precision and recall: in the judge's features; joint: in
these together with the colour.
"""

import argparse
import csv
from dataclasses import dataclass, field
from functools import cached_property

import torch
from comfy.cli_args import args
from tqdm import tqdm, trange

import nodes
from demo.scene_checker import CLEAN_OVERLAP, read_picture
from demo.train_classifier import CLASSES
from tools.environment import DEV

from . import in_process, results
from .earlier_scores import MA2023, PLAIN
from .in_process import run_node
from .judge import Reference
from .noise_aware_twin import noise_aware_twin

KEPT = DEV / "benchmarks" / "classifier_guidance 2.csv"  # anew since each count has noise of its own
STEPS, EVERY = 16, 4
BATCH = 60
SCALES = (0.1, 0.2, 0.4, 0.8)


@dataclass(frozen=True)
class Method:
    """score, guidance: inputs of the nodes Score and Apply, beside the scale.

    paper: Fréchet distance relative to ma2023 in arXiv 2511.05844, on ImageNet at 128 pixels; where the paper gives
    50,000 samples guided by a ResNet-101 those, otherwise 10,000 by a ResNet-50.
    """

    score: dict = field(default_factory=lambda: MA2023)
    guidance: dict = field(default_factory=dict)
    scales: tuple[float, ...] = SCALES
    noise_aware: bool = False
    paper: float | None = None


METHODS = {
    "no guidance": Method(scales=(0.0,)),
    "Dhariwal": Method(PLAIN, {"normalize": False}, (0.5, 1.0, 2.0, 4.0), noise_aware=True, paper=2.97 / 2.19),
    "ma2023": Method(paper=1.0),
    "tilted": Method(guidance={"tilt": -0.2}, paper=5.28 / 5.34),
    "entropy": Method({**MA2023, "entropy_weight": 0.2}, paper=5.30 / 5.34),
    "reverse KL": Method({**MA2023, "divergence": "reverse_kl"}, paper=2.14 / 2.19),
    "forward KL": Method({**MA2023, "divergence": "forward_kl"}, paper=2.17 / 2.19),
    "Jensen-Shannon": Method({**MA2023, "divergence": "jensen_shannon"}, paper=2.13 / 2.19),
}
COLUMNS = ("accuracy", "clean", "Fréchet", "joint", "precision", "recall")


class Bench:
    """The demo model, its classifiers and the judge's view of real pictures."""

    def __init__(self):
        self.model, clip, self.vae = run_node("EntropyGuidanceLoadDemo")
        self.empty = run_node("CLIPTextEncode", clip=clip, text="")[0]
        self.clean = run_node("EntropyGuidanceLoadClassifier")[0]

    @cached_property
    def noise_aware(self):
        return noise_aware_twin()

    @cached_property
    def reference(self) -> Reference:
        return Reference(2000)

    def measure(self, method: Method, scale: float, count: int, classifier=None) -> dict[str, float]:
        """classifier: another one than the method's own."""
        classifier = classifier or (self.noise_aware if method.noise_aware else self.clean)
        labels = [i % len(CLASSES) for i in range(count)]
        seed = 1000 * count  # noise of its own for each count: pictures on which a scale was chosen are in no row
        starts = trange(0, count, BATCH, leave=False)
        pictures = torch.cat([self._draw(method, scale, labels[i : i + BATCH], seed + i, classifier) for i in starts])
        return {**read(pictures, labels), **self.reference.compare(pictures, torch.tensor(labels))}

    @torch.inference_mode()
    def _draw(self, method: Method, scale: float, labels: list[int], seed: int, classifier) -> torch.Tensor:
        score = run_node(
            "EntropyGuidanceScore", classifier=classifier, labels=",".join(map(str, labels)), **method.score
        )[0]
        model = run_node(
            "EntropyGuidanceApply", model=self.model, score=score, vae=self.vae, decode="full", scale=scale, every=EVERY,
            **method.guidance,
        )[0]  # fmt: skip
        latent = {"samples": torch.zeros(len(labels), 4, 16, 16)}
        (sampled,) = nodes.common_ksampler(model, seed, STEPS, 1.0, "euler", "simple", self.empty, self.empty, latent)
        return self.vae.decode(sampled["samples"]).movedim(-1, 1).float()


def read(pictures: torch.Tensor, labels: list[int]) -> dict[str, float]:
    """Accuracy and share of clean shapes, by the checker of scenes."""
    found = [read_picture(picture).blobs for picture in pictures]
    largest = [max(blobs, key=lambda blob: blob.radius).colour if blobs else None for blobs in found]
    overlaps = [blob.overlap for blobs in found for blob in blobs]
    return {
        "accuracy": sum(colour == CLASSES[label] for colour, label in zip(largest, labels)) / len(labels),
        "clean": sum(overlap >= CLEAN_OVERLAP for overlap in overlaps) / max(len(overlaps), 1),
    }


def kept_results() -> dict[tuple[str, float, int], dict[str, float]]:
    if not KEPT.exists():
        return {}
    with KEPT.open(newline="") as file:
        return {
            (row["method"], float(row["scale"]), int(row["samples"])): {key: float(row[key]) for key in COLUMNS}
            for row in csv.DictReader(file)
        }


def keep(method: str, scale: float, samples: int, result: dict[str, float]) -> None:
    new = not KEPT.exists()
    with KEPT.open("a", newline="") as file:
        writer = csv.DictWriter(file, ("method", "scale", "samples", *COLUMNS))
        if new:
            writer.writeheader()
        writer.writerow({"method": method, "scale": scale, "samples": samples, **result})


def run(bench: Bench, name: str, few: int, many: int, at: float | None) -> None:
    method = METHODS[name]

    def measured(scale: float, samples: int) -> dict[str, float]:
        if (name, scale, samples) not in kept_results():
            keep(name, scale, samples, bench.measure(method, scale, samples))
        return kept_results()[name, scale, samples]

    if at is None:
        at = min(method.scales, key=lambda scale: measured(scale, few)["joint"])
    measured(at, many)


def report() -> None:
    """Prints all that is there, and writes the results."""
    kept = kept_results()
    most = max(samples for _, _, samples in kept)
    rows: dict[str, dict] = {"tried": {}, "rows": {}}
    print(f"\n{'method':16}{'scale':>7}{'samples':>9}" + "".join(f"{c:>11}" for c in COLUMNS))
    for (name, scale, samples), row in sorted(kept.items(), key=lambda item: ([*METHODS].index(item[0][0]), item[0])):
        print(f"{name:16}{scale:>7g}{samples:>9}" + "".join(f"{row[c]:>11.3f}" for c in COLUMNS))
        entry = {"method": name, "scale": scale, "samples": samples, **row, "paper": METHODS[name].paper}
        rows["rows" if samples == most else "tried"][f"{name}, {scale:g}"] = entry
    results.write("classifier_guidance", {"sampler": "euler, simple", "steps": STEPS, "every": EVERY, **rows})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--few", type=int, default=120, help="pictures a scale is tried on")
    parser.add_argument("--many", type=int, default=1020, help="pictures of the row at the best scale")
    parser.add_argument("--at", type=float, help="measure at this scale, without a trial")
    options = parser.parse_args()
    args.bf16_vae = True  # half the time of a gradient on a CPU
    in_process.load_nodes()
    bench = Bench()
    for name in tqdm(options.methods):
        run(bench, name, options.few, options.many, options.at)
    report()


if __name__ == "__main__":
    main()
