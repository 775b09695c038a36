"""Both papers' tables in their own setting, in small: `python -m benchmarks.class_conditional`.

The class-conditional demo model (pixels, 18 classes) under DDPM with its learned variance, steered by a clean-image
classifier that is surer than it is right, and by ERG. Every method tries the same number of settings on the same
pictures of their own seeds; the one with the lowest joint Fréchet distance is then measured on others. Batches are kept
in `.dev/benchmarks`: an interrupted run goes on, a larger --pictures adds to what is there, and all methods get their
batches in turn, so that rows can be compared at any time. Some four hours on two cores for 10,000 pictures a row, and two
and a half with --dtype bf16. Writes docs/results/class_conditional.json and docs/class-conditional.png.
"""

import argparse
import gc
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.utils import make_grid
from tqdm import tqdm

from . import class_judge, in_process, results, tables
from .class_bench import BATCH, FOLDER, NOISE_AWARE, STEPS, Setting, classifier, draw
from .class_measures import CONFIDENCE, LOWER_IS_BETTER, Eyes, Seen, measure
from .earlier_scores import MA2023, PLAIN

TUNING, TEST = 1, 2  # seeds
AT_ONCE = 10  # batches of a method, before the next has its turn
COLUMNS = 18  # of the picture
SCALES = (2.0, 4.0, 8.0, 16.0)
CFG_SCALES = (2.0, 3.5, 5.0, 8.0)
# What a setting had before there was a choice: a batch keeps the name that it had then.
LATER = {"dtype": "default", "variance": "learned", "apply": None}
LAST = "8-9"  # of ten layers: those at 16 × 16 on the way up


@dataclass(frozen=True)
class Size:
    """How much is drawn, and how well it is judged. settings: how many a method tries at most. tried: pictures that a
    setting is tried on. real: pictures of the world itself. folder: of drawn batches. compiled: pays in long runs."""

    steps: int = STEPS
    settings: int | None = None
    tried: int = 216
    real: int = 10_000
    resamples: int = 200
    folder: Path = FOLDER
    judge: Path = class_judge.WEIGHTS
    judge_steps: int = class_judge.STEPS
    compiled: bool = True

    def eyes(self) -> Eyes:
        return Eyes(class_judge.class_judge(self.judge, self.judge_steps))


FULL = Size()
QUICK = Size(
    steps=4, settings=1, tried=BATCH, real=360, resamples=5, folder=results.QUICK / "class_conditional",
    judge=results.QUICK / "class-judge.safetensors", judge_steps=20, compiled=False,
)  # fmt: skip
QUICK_METHODS = ("none", "ma2023", "CFG")


@dataclass(frozen=True)
class Method:
    """settings: what is tried. paper: the Fréchet distance relative to ma2023, arXiv 2511.05844 (ImageNet 128; of 50,000
    pictures where the paper gives them, otherwise of 10,000), or relative to CFG, arXiv 2504.13987 (ImageNet 512)."""

    settings: tuple[Setting, ...]
    paper: float | None = None


def _at_scales(paper: float | None = None, **setting) -> Method:
    return Method(tuple(Setting(scale=scale, **setting) for scale in SCALES), paper)


def _erg(*choices: tuple[float, str, float], negative: str, paper: float | None = None) -> Method:
    """From choices of cfg, layers and temperature."""
    return Method(
        tuple(
            Setting(cfg=cfg, negative=negative, erg={"layers": layers, "temperature": temperature})
            for cfg, layers, temperature in choices
        ),
        paper,
    )


METHODS = {
    "none": Method((Setting(),)),
    "Dhariwal & Nichol": _at_scales(2.97 / 2.19, score=PLAIN, classifier=NOISE_AWARE, gamma=0.0),
    "ma2023": _at_scales(1.0),
    "tilted": _at_scales(5.28 / 5.34, tilt=-0.2),
    "entropy": _at_scales(5.30 / 5.34, score={**MA2023, "entropy_weight": 0.2}),
    "reverse KL": _at_scales(2.14 / 2.19, score={**MA2023, "divergence": "reverse_kl"}),
    "forward KL": _at_scales(2.17 / 2.19, score={**MA2023, "divergence": "forward_kl"}),
    "Jensen-Shannon": _at_scales(2.13 / 2.19, score={**MA2023, "divergence": "jensen_shannon"}),
    "Smooth-ECE fine-tuned": _at_scales(5.94 / 6.15, classifier="Smooth-ECE"),
    "entropy-aware": _at_scales(2.68 / 2.19, classifier="entropy-aware"),
    "CFG": Method(tuple(Setting(cfg=cfg) for cfg in CFG_SCALES), 1.0),
    "I-ERG, class as negative": _erg(
        (1.25, LAST, 0.01), (1.5, LAST, 0.01), (2.0, LAST, 0.01), (1.5, LAST, 0.3), negative="class", paper=4.56 / 5.65
    ),
    "I-ERG, null class as negative": _erg(
        (1.25, LAST, 0.01), (1.5, LAST, 0.01), (2.0, LAST, 0.01), (1.5, LAST, 0.3), negative="null"
    ),
}  # fmt: skip
CLASSIFIER_ROWS = [*METHODS][1:10]


@dataclass(frozen=True)
class Job:
    """A batch of a setting with a seed."""

    setting: Setting
    seed: int
    number: int
    size: Size

    @property
    def file(self) -> Path:
        setting = {name: value for name, value in asdict(self.setting).items() if LATER.get(name, ...) != value}
        name = sha256(json.dumps([setting, self.size.steps, BATCH]).encode()).hexdigest()[:16]
        return self.size.folder / f"{name}-{self.seed}" / f"{self.number:04}.safetensors"


_eyes: Eyes


def start(size: Size) -> None:
    """What a process needs before its first job."""
    global _eyes
    torch.set_num_threads(1)
    if not size.compiled:
        torch.compiler.set_stance("force_eager")
    in_process.load_nodes()
    _eyes = size.eyes()
    gc.freeze()  # ComfyUI collects garbage wherever clones have gone: what is there by now is not looked through


def _do(job: Job) -> None:
    pictures, labels = draw(job.setting, job.number, job.seed, steps=job.size.steps)
    seen = _eyes(pictures.clone(), labels)
    job.file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = job.file.with_suffix(".unfinished")
    save_file({**asdict(seen), "pictures": (255 * pictures).byte()}, unfinished)
    unfinished.replace(job.file)


def run(jobs: list[Job], workers: ProcessPoolExecutor, name: str) -> None:
    """Does the jobs that are not done yet, in their order."""
    waiting = [workers.submit(_do, job) for job in jobs if not job.file.exists()]
    for done in tqdm(as_completed(waiting), desc=name, total=len(waiting)):
        done.result()


def seen(setting: Setting, seed: int, batches: int, size: Size) -> Seen:
    parts = [load_file(Job(setting, seed, number, size).file) for number in range(batches)]
    return Seen(*(torch.cat([part[key] for part in parts]) for key in ("features", "told", "asked")))


def tune(workers: ProcessPoolExecutor, real: Seen, methods: list[str], size: Size) -> dict[str, list[dict]]:
    """For each method what was tried, the best first."""
    batches = size.tried // BATCH
    tried = {name: METHODS[name].settings[: size.settings] for name in methods}
    jobs = [Job(s, TUNING, number, size) for settings in tried.values() for s in settings for number in range(batches)]
    run(jobs, workers, "tuning")
    found = {}
    for name, settings in tried.items():
        rows = [
            {"setting": s, **{k: v["value"] for k, v in measure(real, seen(s, TUNING, batches, size)).items()}}
            for s in settings
        ]
        found[name] = sorted(rows, key=lambda row: row["joint"])
    return found


def kept(methods: list[str]) -> dict[str, list[dict]]:
    """What an earlier run tried, as `tune` gives it."""
    tried = results.read("class_conditional")["tried"]
    return {name: [{**row, "setting": Setting(**row["setting"])} for row in tried[name]] for name in methods}


def in_turn(chosen: dict[str, Setting], batches: int, size: Size) -> Iterator[Job]:
    """All batches, some of each method and then of the next: to change the method takes time."""
    for first in range(0, batches, AT_ONCE):
        for setting in chosen.values():
            for number in range(first, min(first + AT_ONCE, batches)):
                yield Job(setting, TEST, number, size)


def rows_of(
    workers: ProcessPoolExecutor, real: Seen, chosen: dict[str, Setting], most: int, size: Size
) -> tuple[dict[str, int], dict[str, dict]]:
    """How many pictures each row has by now, and the measures of them."""
    batches = {
        name: next((n for n in range(most) if not Job(setting, TEST, n, size).file.exists()), most)
        for name, setting in chosen.items()
    }
    rows = {name: workers.submit(_row, real, setting, batches[name], size) for name, setting in chosen.items()}
    pictures = {name: BATCH * count for name, count in batches.items()}
    return pictures, {name: row.result() for name, row in tqdm(rows.items(), desc="rows")}


def _row(real: Seen, setting: Setting, batches: int, size: Size) -> dict[str, dict]:
    return measure(real, seen(setting, TEST, batches, size), size.resamples)


def ratios(rows: dict[str, dict]) -> dict[str, dict[str, float | None]]:
    """For each method its Fréchet distance relative to its baseline's, where that is among the rows, and the paper's."""
    found: dict[str, dict[str, float | None]] = {}
    for name, row in rows.items():
        baseline = rows.get("ma2023" if name in CLASSIFIER_ROWS else "CFG")
        ratio = row["Fréchet"]["value"] / baseline["Fréchet"]["value"] if baseline else None
        found[name] = {"ours": ratio, "paper": METHODS[name].paper}
    return found


def draw_grid(chosen: dict[str, Setting], path: Path, size: Size) -> None:
    """A row of pictures for each method, of the same noise and classes."""

    def on(figure):
        for axes, (name, setting) in zip(figure.subplots(len(chosen), 1), chosen.items()):
            pictures = load_file(Job(setting, TEST, 0, size).file)["pictures"][:COLUMNS]
            axes.imshow(make_grid(pictures, nrow=COLUMNS, padding=1, pad_value=255).movedim(0, -1))
            axes.set_axis_off()
            axes.text(-6, 17, name, ha="right", va="center", fontsize=7.5)

    picture = in_process.pack_module("nodes.drawing.figure").drawn(on, 9, 0.45 * len(chosen), dpi=85)
    Image.fromarray(picture).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10_000, help="of each row")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--kept", action="store_true", help="the settings that the kept results chose, not tried again")
    parser.add_argument(
        "--dtype",
        default="default",
        help="of the rows' sampling, by ComfyUI's ModelComputeDtype; bf16 is a third quicker",
    )
    parser.add_argument("--report", action="store_true", help="of what is there, without drawing more")
    parser.add_argument("--quick", action="store_true", help="little of three methods, kept out of the repository")
    options = parser.parse_args()
    size = FULL
    if options.quick:
        size, options.pictures, options.workers, options.methods = QUICK, BATCH, 1, QUICK_METHODS
        shutil.rmtree(size.folder, ignore_errors=True)
    in_process.load_nodes()
    for name in {setting.classifier for method in options.methods for setting in METHODS[method].settings}:
        classifier(name)
    eyes = size.eyes()
    real = eyes.real(size.real, seed=3)
    batches = -(-options.pictures // BATCH)
    with ProcessPoolExecutor(options.workers, get_context("spawn"), start, (size,)) as workers:
        tried = kept(options.methods) if options.kept else tune(workers, real, options.methods, size)
        chosen = {name: replace(rows[0]["setting"], dtype=options.dtype) for name, rows in tried.items()}
        if not options.report:
            run([*in_turn(chosen, batches, size)], workers, "drawing")
        pictures, rows = rows_of(workers, real, chosen, batches, size)
    most = max(pictures.values())
    ceiling = measure(real, eyes.real(most, seed=4), size.resamples)
    found = {
        "steps": size.steps, "dtype": options.dtype, "pictures": most, "real": size.real,
        "fewer pictures": {name: count for name, count in pictures.items() if count < most},
        "confidence": CONFIDENCE, "lower is better": LOWER_IS_BETTER,
        "tried": {name: [{**row, "setting": asdict(row["setting"])} for row in rows] for name, rows in tried.items()},
        "rows": {**rows, "real pictures": ceiling}, "Fréchet, relative": ratios(rows),
    }  # fmt: skip
    results.write("class_conditional", found, options.quick)
    draw_grid(chosen, results.picture("class-conditional", options.quick), size)
    print(f"\n{most:,} pictures a row\n{tables.class_conditional({'class_conditional': found}.__getitem__)}")


if __name__ == "__main__":
    main()
