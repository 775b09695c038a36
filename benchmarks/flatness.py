"""Does `flatness` need less tuning than `temperature`? `python -m benchmarks.flatness`.

Three networks and three choices of layers, ERG with the same prompt as its negative at one scale, so that the flatter
attention alone does the guiding, over temperature τ and over flatness f: does one f fit all nine, where no τ does?
Both ways go from no guidance (τ 1, f 0) to uniform attention (τ 0, f 1).

Every row draws the same captions from the same noise, in rounds of 32 pictures; a round that was drawn is kept in
`.dev/benchmarks`, so that an interrupted run goes on and more rounds add to those that are there. Writes
docs/results/flatness.json and docs/flatness.png. An hour on one core; `python -m benchmarks.train_unet_twin` goes before.
"""

import argparse
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

import nodes
from demo.loader import load_clip, load_vae
from demo.scene_checker import Shown, read_picture
from demo.scenes import Scene, sample_scene
from tools.environment import DEV

from . import in_process
from .demo_models import EARLIER, demo_model, with_weights_of
from .flatness_report import report
from .in_process import encode, run_node
from .judge import WEIGHTS, judge
from .unet_twin import unet_twin

SCALE, STEPS = 2.0, 8
ROUND, BATCH = 32, 8  # pictures; few at a time are faster on a CPU
KEPT = DEV / "benchmarks" / "flatness"
LAYERS = ("40%-50%", "20%-60%", "all")
SETTINGS = {f"τ {τ}": {"temperature": τ} for τ in (0.9, 0.8, 0.6, 0.4, 0.2)}
SETTINGS |= {f"f {f}": {"flatness": f} for f in (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)}
SETTINGS |= {"uniform": {"temperature": 0.0}}


class Row(NamedTuple):
    """layers: "none" without ERG, where the setting is "no guidance" or "CFG"."""

    model: str
    layers: str
    setting: str


MODELS = {
    "demo model": demo_model,
    "its earlier checkpoint": partial(with_weights_of, EARLIER),
    "U-Net twin": lambda: (unet_twin(), load_clip()),
}


def all_rows(models, layers) -> list[Row]:
    plain = [Row(model, "none", setting) for model in models for setting in ("no guidance", "CFG")]
    return plain + [Row(*key, setting) for key in ((m, c) for m in models for c in layers) for setting in SETTINGS]


class Bench:
    """The networks, and what is read off their pictures."""

    def __init__(self):
        self.vae, self.judge = load_vae(), judge()
        self.loaded: dict = {}

    @torch.inference_mode()
    def draw(self, row: Row, number: int) -> dict[str, torch.Tensor]:
        """A round of a row: the judge's features [ROUND, F] and, for each picture, whether it is as its caption says."""
        scenes = captioned(number)
        captions = [scene.caption for scene in scenes]
        starts = range(0, ROUND, BATCH)
        pictures = torch.cat([self._sample(row, captions[i : i + BATCH], number * ROUND + i) for i in starts])
        shown = [*map(read_picture, pictures)]
        return {
            "features": self.judge(pictures),
            "exact": torch.tensor([*map(Shown.has_pairs_of, shown, scenes)]),
            "relation": torch.tensor([*map(Shown.has_relation_of, shown, scenes)]),
        }

    def _sample(self, row: Row, captions: list[str], seed: int) -> torch.Tensor:
        if row.model not in self.loaded:
            self.loaded = {row.model: MODELS[row.model]()}  # one at a time
        model, clip = self.loaded[row.model]
        positive = encode(clip, captions)
        negative = encode(clip, [""]) if row.setting == "CFG" else positive
        if row.setting in SETTINGS:
            model = run_node("EntropyGuidanceERG", model=model, layers=row.layers, **SETTINGS[row.setting])[0]
        scale = 1.0 if row.setting == "no guidance" else SCALE
        latent = {"samples": torch.zeros(len(captions), 4, 16, 16)}
        (sampled,) = nodes.common_ksampler(model, seed, STEPS, scale, "euler", "simple", positive, negative, latent)
        return self.vae.decode(sampled["samples"]).movedim(-1, 1).float()


def captioned(number: int) -> list[Scene]:
    rng = Random(f"flatness {number}")
    return [sample_scene(rng, held_out=True) for _ in range(ROUND)]


def drawn(row: Row, rounds: int) -> dict[str, torch.Tensor]:
    """All rounds of a row together."""
    parts = [load_file(_path(row, number)) for number in range(rounds)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _path(row: Row, number: int) -> Path:
    return _folder() / f"{' '.join(row)} {number}.safetensors"


@cache
def _folder() -> Path:
    """Of what this judge has seen."""
    judge = sha256(WEIGHTS.read_bytes()).hexdigest()[:8]
    return KEPT / f"scale {SCALE} steps {STEPS} judge {judge}"


def draw_missing(rows: list[Row], rounds: int) -> None:
    """Round by round, so that an interrupted run leaves whole rounds behind."""
    bench = Bench()
    _folder().mkdir(parents=True, exist_ok=True)
    missing = [(row, number) for number in range(rounds) for row in rows if not _path(row, number).exists()]
    for row, number in tqdm(missing, desc=f"rounds of {ROUND} pictures"):
        save_file(bench.draw(row, number), _path(row, number))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help=f"of {ROUND} pictures, for each row")
    parser.add_argument("--models", nargs="*", choices=MODELS, default=[*MODELS])
    parser.add_argument("--quick", action="store_true", help="one round of the demo model, kept out of the repository")
    options = parser.parse_args()
    in_process.load_nodes()
    models, layers, rounds = options.models, LAYERS, options.rounds
    if options.quick:
        models, layers, rounds = ["demo model"], ("40%-50%", "all"), 1
    rows = all_rows(models, layers)
    draw_missing(rows, rounds)
    settings = {"scale": SCALE, "steps": STEPS, "pictures": rounds * ROUND, "sampler": "euler, simple"}
    report({row: drawn(row, rounds) for row in rows}, settings, options.quick)


if __name__ == "__main__":
    main()
