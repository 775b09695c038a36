"""ERG's table 1 on the demo model: `python -m benchmarks.text_to_image`.

Every method gets the same search (Optuna's TPE) on captions and noise of their own, and is then measured once on others, at
its best setting and, for its front, at other scales. All methods share captions and noise; batches that were drawn are
kept, so that an interrupted run goes on and a larger --batches adds to what is there. Held-out captions, Euler; three seeds
of the noise for each caption. Writes docs/results/text_to_image.json, and for each regime docs/text-to-image-REGIME.png,
docs/unconditional-REGIME.png and docs/text-to-image-fronts-REGIME.png and .svg. Tables that were not asked for stay as they
are; with --join those that were get what they do not have yet: methods, fronts of methods, and measures of methods that were
chosen before these were measured.
"""

import argparse
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from textwrap import fill

import torch
from PIL import Image
from torchvision.utils import make_grid

from demo.scenes import IMAGE_SIZE, render

from .. import in_process, results
from ..demo_models import COMMITTED, EARLIER_ONE, REGIMES, UNET, is_here
from . import figures, rivals
from .drawing import Setting
from .joined import check_alike, joined
from .kept import BATCH, SEEDS, Job, fingerprint
from .measures import LOWER_IS_BETTER, measure, real
from .methods import METHODS, UNCONDITIONAL
from .rows import in_turn, measured, processes
from .search import REAL, Search, find
from .tables import text_to_image

FRONT = (1.25, 1.5, 2.0, 3.0, 4.0)  # scales
NO_GUIDANCE = ("none", 1.0)  # the point where all fronts begin
TABLES = PROMPTED, UNPROMPTED = "prompted", "unconditional"
SPACES = {PROMPTED: METHODS, UNPROMPTED: UNCONDITIONAL}
CONSISTENCY = ("exact", "asked")
HARDLY_DRAW = ("beginner", "pupil", UNET)
GRIDS = {PROMPTED: "text-to-image", UNPROMPTED: "unconditional"}  # how names of pictures begin
COLUMNS = 8  # of these
SCALED = [name for name in METHODS if name != "none"]


def table(
    workers: ProcessPoolExecutor, regime: str, kind: str, options: argparse.Namespace, earlier: dict | None = None
) -> dict:
    """What was tried of each method, and each method's row and front. earlier: a table that this one joins."""
    prompted = kind == PROMPTED
    there = {} if earlier is None else {name: Setting(**setting) for name, setting in earlier["settings"].items()}
    methods = [m for m in SPACES[kind] if m in options.methods and m not in there and _is_possible(m, regime)]
    real_pictures = ceiling(options.batches * BATCH, prompted)
    again = [m for m in there if m in options.methods and real_pictures.keys() - earlier["rows"][m].keys()]
    fronts_there = earlier["fronts"] if there else {}
    scaled = [m for m in options.fronts if prompted and m not in fronts_there and (m in there or m in methods)]
    if there and not (methods or again or scaled):
        return earlier
    what = f"{regime}, {kind}"
    searches = [_search(regime, method, prompted, options) for method in methods]
    tried = dict(zip(methods, in_turn(workers, find, searches, f"{what}: searching")))
    chosen = {method: rows[0]["setting"] for method, rows in tried.items()}
    baseline = earlier["baseline"] if there else _baseline(chosen)
    if there:
        chosen |= {method: there[method] for method in (*again, baseline)}
    rows = measured(
        workers,
        regime,
        chosen,
        options.batches,
        options.steps,
        f"{what}: drawing",
        prompted=prompted,
        baseline=baseline,
    )
    points, fronts = _points(there | chosen, scaled), {}
    if points:
        fronts = measured(
            workers, regime, points, options.front_batches, options.steps, f"{what}: fronts", baseline=NO_GUIDANCE
        )
    found = {
        **results.origin("text_to_image"), **_terms(regime, options), "real pictures": real_pictures,
        "tried": {name: [{**row, "setting": asdict(row["setting"])} for row in rows] for name, rows in tried.items()},
        "settings": {name: asdict(setting) for name, setting in chosen.items()},
        "rows": rows, "baseline": baseline,
        "fronts": _by_scale(fronts),
    }  # fmt: skip
    return joined(earlier, found, SPACES[kind]) if there else found


def _terms(regime: str, options: argparse.Namespace) -> dict:
    """What all rows of a table have in common."""
    return {
        "networks": fingerprint(regime), "trials": options.trials, "tuned on": options.tuning_batches * BATCH,
        "finalists": options.finalists, "finalists on": options.final_batches * BATCH,
        "consistency": _consistency(regime, options), "real pictures tuned with": options.real_pictures,
        "pictures": options.batches * BATCH, "pictures of a front's point": options.front_batches * BATCH,
    }  # fmt: skip


def _search(regime: str, method: str, prompted: bool, options: argparse.Namespace) -> Search:
    consistency = _consistency(regime, options)
    return Search(
        regime, method, prompted, options.trials, options.tuning_batches, options.finalists, options.final_batches,
        options.steps, consistency, options.real_pictures,
    )  # fmt: skip


def _consistency(regime: str, options: argparse.Namespace) -> str:
    return options.consistency or ("asked" if regime in HARDLY_DRAW else "exact")


def _baseline(methods: Iterable[str]) -> str:
    """CFG, or the first where it is not asked for."""
    return "CFG" if "CFG" in methods else next(iter(methods))


def _points(chosen: dict[str, Setting], names: Iterable[str]) -> dict[tuple[str, float], Setting]:
    """Of fronts: each method's best setting at other scales, and no guidance."""
    points = {(name, w): chosen[name].at(w) for name in names if name in chosen for w in FRONT}
    return points | {NO_GUIDANCE: Setting()} if points else {}


def _by_scale(rows: dict[tuple[str, float], dict]) -> dict[str, dict[str, dict]]:
    """Rows of fronts, by method and scale."""
    return {name: {str(w): row for (of, w), row in rows.items() if of == name} for name, _ in rows}


def _is_possible(method: str, regime: str) -> bool:
    """Autoguidance needs an earlier state of the network, and what is made for the demo model's attention that."""
    if method in rivals.METHODS:
        return regime != UNET
    return method != "autoguidance" or regime in EARLIER_ONE


def ceiling(pictures: int, held_out: bool) -> dict:
    """The measures of real pictures among others."""
    found = measure(*(real(pictures, f"text to image, {name}", held_out) for name in ("reference", "ceiling")))
    return {name: {"value": value} for name, value in found.items()}


def grid(regimes: dict, kind: str, folder: Path, steps: int) -> None:
    """A picture for each regime whose weights are here: a row for each method, of the same captions and noise, below their
    captions and real pictures of them. kind: PROMPTED or UNPROMPTED."""
    for regime, tables in regimes.items():
        if kind in tables and _is_of_what_is_here(regime, tables[kind]):
            path = folder / f"{GRIDS[kind]}-{figures.slug(regime)}.png"
            _grid(regime, tables[kind]["settings"], kind == PROMPTED, path, steps)


def _is_of_what_is_here(regime: str, table: dict) -> bool:
    """Whether a table's networks are in the repository, or were trained here."""
    return regime in COMMITTED or is_here(regime) and table.get("networks") == fingerprint(regime)


def _grid(regime: str, settings: dict[str, dict], prompted: bool, path: Path, steps: int) -> None:
    jobs = {name: Job(regime, Setting(**setting), "test", 0, steps, prompted) for name, setting in settings.items()}
    rows = {name: job.pictures()[:COLUMNS] for name, job in jobs.items()}
    scenes = next(iter(jobs.values())).scenes[:COLUMNS]
    if prompted:
        rows = {"asked for": torch.stack([(255 * render(scene)).byte() for scene in scenes]), **rows}

    def on(figure):
        panels = figure.subplots(len(rows), 1, squeeze=False, gridspec_kw={"hspace": 0.02})[:, 0]
        for axes, (name, pictures) in zip(panels, rows.items()):
            axes.imshow(make_grid(pictures, nrow=COLUMNS, padding=2, pad_value=255).movedim(0, -1))
            axes.set_axis_off()
            axes.text(-12, IMAGE_SIZE / 2, name, ha="right", va="center", fontsize=11)
        for i, scene in enumerate(scenes if prompted else ()):
            where = (i + 0.5) * (IMAGE_SIZE + 2), -8
            panels[0].text(*where, fill(scene.caption, 16), ha="center", va="bottom", fontsize=9)

    picture = in_process.pack_module("nodes.drawing.figure").drawn(on, 12, 1.22 * len(rows) + prompted, dpi=90)
    Image.fromarray(picture).quantize(256).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--regimes",
        nargs="*",
        choices=REGIMES,
        default=[*filter(is_here, REGIMES)],
        help="those whose weights are here; the others have to be trained first",
    )
    parser.add_argument("--methods", nargs="*", choices=[*METHODS, *UNCONDITIONAL], default=[*METHODS, *UNCONDITIONAL])
    parser.add_argument("--tables", nargs="*", choices=TABLES, default=[*TABLES])
    parser.add_argument("--trials", type=int, default=10, help="settings that are tried of each method")
    parser.add_argument("--tuning-batches", type=int, default=6, help=f"of {BATCH} pictures, for each trial")
    parser.add_argument("--finalists", type=int, default=3, help="of each method's settings, that are measured again")
    parser.add_argument("--final-batches", type=int, default=18, help=f"of {BATCH} pictures, for each of these")
    parser.add_argument(
        "--consistency", choices=CONSISTENCY,
        help="what a search adds to density and coverage: exact, or for models that draw hardly any picture exactly asked",
    )  # fmt: skip
    parser.add_argument("--batches", type=int, default=126, help=f"of {BATCH} pictures, for each row")
    parser.add_argument("--front-batches", type=int, default=18, help=f"of {BATCH} pictures, for each point of a front")
    parser.add_argument(
        "--fronts", nargs="*", choices=SCALED, default=[*SCALED], help="methods that are drawn at other scales, too"
    )
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument(
        "--join",
        action="store_true",
        help="add methods, fronts and measures to tables that are there and were made alike",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few pictures of three methods, in minutes; not into docs"
    )
    parser.set_defaults(real_pictures=REAL)
    options = parser.parse_args()
    if options.quick:
        options.real_pictures = 2 * BATCH
        options.regimes, options.methods = ["demo model"], ["none", "CFG", "I-ERG, same prompt", "I-ERG"]
        options.trials, options.tuning_batches, options.final_batches = 2, 1, 2
        options.batches, options.front_batches, options.steps = 1, 1, 2
        options.fronts, options.join = ["CFG"], False
    options.tables = [kind for kind in options.tables if SPACES[kind].keys() & {*options.methods}]
    there = _tables_to_join(options) if options.join else {}
    with processes(options.workers, options.quick) as workers:
        drawn = {
            regime: {kind: table(workers, regime, kind, options, there.get((regime, kind))) for kind in options.tables}
            for regime in options.regimes
        }
    regimes = {} if options.quick else _earlier(options.steps)
    for regime, tables in drawn.items():
        regimes[regime] = {**regimes.get(regime, {}), **tables}
    found = {"steps": options.steps, "seeds": SEEDS, "lower is better": LOWER_IS_BETTER, "regimes": regimes}
    results.write("text_to_image", found, options.quick)
    figures.fronts(found, results.folder(options.quick))
    for regime in options.regimes:
        for kind in options.tables:
            print(f"\n{regime}, {kind}\n{text_to_image(found, kind, regime)}")
    for kind in options.tables:
        grid(regimes, kind, results.folder(options.quick), options.steps)


def _tables_to_join(options: argparse.Namespace) -> dict[tuple[str, str], dict]:
    """By regime and kind. Raises ValueError, before anything is drawn, where one cannot take further rows."""
    regimes = _earlier(options.steps)
    there = {(regime, kind): regimes.get(regime, {}).get(kind) for regime in options.regimes for kind in options.tables}
    for (regime, kind), found in there.items():
        check_alike(found, _terms(regime, options), f"{regime}, {kind}")
    return there


def _earlier(steps: int) -> dict:
    """The tables of earlier runs of so many steps, by regime."""
    try:
        found = results.read("text_to_image")
    except FileNotFoundError:
        return {}
    return found["regimes"] if found["steps"] == steps else {}


if __name__ == "__main__":
    main()
