"""The papers' experiment: `python -m benchmarks.papers --diffusion 128x128_diffusion.pt --classifier resnet101-cd907fc2.pth
--reference VIRTUAL_imagenet128_labeled.npz --samples 50000`.

250 steps of DDPM with the model's learned variance for each method of classifier guidance: FID against the statistics
of the training set, improved precision and recall (k = 3) against its 10,000 pictures, in Inception's features by
torch-fidelity. `torchrun --nproc-per-node 8 -m benchmarks.papers …` shares the batches among GPUs, and with --nnodes
among machines. Features of each batch are kept, so that an interrupted run, and one for more samples, go on.

--twin runs the same on the bundled model of 18 classes and its classifiers, in the features of a judge of that world.
--estimate tells what the published weights would cost, and draws nothing.
"""

import argparse
import json
import sys
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

import torch
import torch_fidelity
from comfy.utils import set_progress_bar_enabled
from comfyui_version import __version__ as comfyui_version
from torch import Tensor

from tools.environment import DEV

from ..classifier_guidance import METHODS
from ..in_process import load_nodes
from .cost import estimate
from .experiment import Course, Experiment
from .eyes import Eyes
from .kept import Batches, key_of
from .measures import NEIGHBOURS, Ruler, drawn_reference, published_reference
from .ranks import Ranks, ranks

TWIN = "entropy-guidance-demo-classes"
BASELINE = "ma2023"
COLUMNS = ("FID", "precision", "recall")


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--diffusion", help="file, or name in ComfyUI's diffusion_models")
    add("--classifier", help="of clean pictures: file or folder, or name in ComfyUI's classifiers")
    add("--noise-aware", help="the same for Dhariwal & Nichol, such as 128x128_classifier.pt")
    add("--reference", type=Path, help="npz of guided-diffusion: arr_0, mu, sigma; its pictures' size is drawn")
    add("--methods", nargs="+", choices=METHODS, help="default: all for which there is a classifier")
    add("--samples", type=int, default=50_000)
    add("--batch", type=int, default=64, help="pictures drawn at once; part of what decides them")
    add("--steps", type=int, default=250)
    add("--scale", type=float, help="default: 1, and 0.5 with a noise-aware classifier")
    add("--gamma", type=float, default=0.3, help="of the sine schedule; 0 with a noise-aware classifier")
    add("--seed", type=int, default=0)
    add("--eyes", "--inception", type=Path, help="weights of torch-fidelity's Inception, which downloads them otherwise; "
        "with --twin, of the judge")  # fmt: skip
    add("--folder", type=Path, default=DEV / "benchmarks" / "papers", help="where features are kept")
    add("--output", type=Path, help="JSON for the results; default: results.json in --folder")
    add("--twin", action="store_true", help="the bundled model, unless other files are named")
    add("--estimate", action="store_true")
    options = parser.parse_args(arguments)
    if options.twin:
        options.diffusion = options.diffusion or TWIN
        if not options.classifier and not options.noise_aware:
            options.classifier, options.noise_aware = TWIN, f"{TWIN}-noise-aware"
    _check(parser, options)
    return options


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    for name, lowest in (("samples", NEIGHBOURS + 1), ("batch", 1), ("gamma", 0), ("scale", 0), ("seed", 0)):
        if (value := getattr(options, name)) is not None and value < lowest:
            parser.error(f"--{name} {value}: it must be {lowest} or more.")
    if options.estimate:
        return
    if not options.diffusion or not (options.classifier or options.noise_aware):
        parser.error("name --diffusion and --classifier (or --noise-aware), or choose --twin.")
    for name in ("reference", "eyes"):
        path = getattr(options, name)
        if path and not path.is_file():
            parser.error(f"--{name} {path}: there is no such file.")
    if not options.reference and not options.twin:
        parser.error("name --reference, such as VIRTUAL_imagenet128_labeled.npz.")


def run(options: argparse.Namespace, process: Ranks) -> None:
    """Raises ValueError for files that are not what they should be, before anything is drawn."""
    load_nodes()
    set_progress_bar_enabled(False)  # of the steps of a sampling
    with process.first_alone():  # who trains or downloads what is not there yet
        eyes = Eyes(options.twin, options.eyes)
    reference = published_reference(options.reference) if options.reference else drawn_reference()
    course = Course(options.batch, options.steps, options.seed, options.gamma, options.scale)
    experiment = Experiment(course, reference.size, options.diffusion, options.classifier, options.noise_aware)
    methods = options.methods or experiment.methods()
    if missing := set(methods) - set(experiment.methods()):
        raise ValueError(
            f"methods: {', '.join(missing)} needs a classifier of the other kind (--classifier, --noise-aware)."
        )

    def seen(name: str, count: int, draw: Callable[[int, int], Tensor], settings: dict) -> Tensor | None:
        folder = options.folder / f"{name}-{key_of({**settings, 'eyes': eyes.fingerprint})}"
        return Batches(count, options.batch, draw, folder).features(eyes, process)

    real = seen(
        "reference", len(reference.pictures), reference.draw(options.batch), {"pictures": reference.fingerprint}
    )
    ruler = Ruler(reference, real) if real is not None else None
    rows = {}
    for method in methods:
        settings = experiment.settings(method)
        drawn = seen(method, options.samples, partial(experiment.draw, method), settings)
        if ruler:
            rows[method] = {**ruler(drawn), "samples": options.samples, "settings": settings}
            _write(rows, options)
    if ruler:
        _print(rows)


def _write(rows: dict, options: argparse.Namespace) -> None:
    results = {
        "date": date.today().isoformat(),
        "versions": {
            "ComfyUI": comfyui_version, "torch": torch.__version__, "torch-fidelity": torch_fidelity.__version__
        },
        "files": {name: str(getattr(options, name)) for name in ("diffusion", "classifier", "noise_aware", "reference")},
        "rows": rows,
    }  # fmt: skip
    output = options.output or options.folder / "results.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def _print(rows: dict) -> None:
    print(f"\n{'method':16}" + "".join(f"{c:>11}" for c in (*COLUMNS, f"/ {BASELINE}", "paper")))
    for name, row in rows.items():
        ratio = f"{row['FID'] / rows[BASELINE]['FID']:.3f}" if BASELINE in rows else "–"
        paper = f"{METHODS[name].paper:.3f}" if METHODS[name].paper else "–"
        print(f"{name:16}" + "".join(f"{row[c]:>11.4f}" for c in COLUMNS) + f"{ratio:>11}{paper:>11}")


def main() -> None:
    options = options_of()
    if options.estimate:
        print(estimate(options.samples, options.steps))
        return
    try:
        with ranks() as process:
            run(options, process)
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
