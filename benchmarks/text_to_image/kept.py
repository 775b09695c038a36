"""Batches that were drawn stay in `.dev/benchmarks/text_to_image`, so that an interrupted run goes on."""

import json
import shutil
from dataclasses import asdict, dataclass, fields
from functools import cache
from hashlib import sha256
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from demo.scenes import Scene, sample_scene
from tools.environment import DEV

from .. import in_process, results
from ..demo_models import weights_of
from ..judge import WEIGHTS as JUDGE
from .drawing import Setting, draw
from .measures import Seen, look, open_eyes

FOLDER = DEV / "benchmarks" / "text_to_image"
BATCH = 16
SEEDS = 3  # of the sampling, for the same captions
LATER = {"guider": None}  # what a setting had before there was a choice: a batch keeps the name that it had then
ONE_CAPTION = 8  # every so many batches of captions, all pictures show one


@dataclass(frozen=True)
class Job:
    """Batch `number` of a setting. purpose: tells captions and noise of tuning from those of the test. prompted: whether
    the model is told the caption; without, what is drawn is nobody's wish."""

    regime: str
    setting: Setting
    purpose: str
    number: int
    steps: int
    prompted: bool = True

    @property
    def file(self) -> Path:
        measured = [field.name for field in fields(Seen)]
        setting = {name: value for name, value in asdict(self.setting).items() if LATER.get(name, ...) != value}
        how = [setting, self.steps, BATCH, SEEDS, ONE_CAPTION, fingerprint(self.regime), measured]
        name = sha256(json.dumps(how).encode()).hexdigest()[:16]
        prompt = "prompted" if self.prompted else "unconditional"
        return FOLDER / self.regime / f"{prompt} {self.purpose}" / name / f"{self.number:04}.safetensors"

    @property
    def scenes(self) -> list[Scene]:
        """Whose captions are drawn; SEEDS batches in a row have the same."""
        return scenes(self.purpose, self.number // SEEDS)

    def do(self) -> None:
        """Draws, unless that has been done."""
        if self.file.exists():
            return
        scenes = self.scenes
        captions = [scene.caption if self.prompted else "" for scene in scenes]
        # ComfyUI draws a batch's noise at once, from its seed: another one for each batch.
        seed = 1_000_000 * (self.purpose == "test") + self.number
        pictures = draw(self.regime, self.setting, captions, seed, self.steps)
        seen = look(pictures, scenes, [self.number // SEEDS * BATCH + i for i in _groups(self.number)])
        kept = {f"seen.{name}": value for name, value in vars(seen).items()}
        if self.number < SEEDS:
            kept["pictures"] = (255 * pictures.clamp(0, 1)).byte()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.file.with_suffix(".unfinished")
        save_file(kept, unfinished)
        unfinished.replace(self.file)

    def seen(self) -> Seen:
        self.do()
        found = load_file(self.file)
        return Seen(**{name.removeprefix("seen."): value for name, value in found.items() if name != "pictures"})

    def pictures(self) -> Tensor:
        """[BATCH, 3, 128, 128] in 0..255, of the first batches alone."""
        self.do()
        return load_file(self.file)["pictures"]


@cache
def fingerprint(regime: str) -> str:
    """Of the networks that a batch is drawn and judged with: the regime's and the judge's. The VAE and the earlier checkpoint
    stay what they are."""
    files = [*weights_of(regime), JUDGE]
    return sha256(b"".join(sha256(file.read_bytes()).digest() for file in files if file.exists())).hexdigest()


def _groups(number: int) -> list[int]:
    return [0] * BATCH if _is_of_one_caption(number // SEEDS) else list(range(BATCH))


def _is_of_one_caption(batch: int) -> bool:
    return batch % ONE_CAPTION == ONE_CAPTION - 1


@cache
def scenes(purpose: str, batch: int) -> list[Scene]:
    rng = Random(f"text to image, {purpose} {batch}")
    found = [sample_scene(rng, held_out=True) for _ in range(BATCH)]
    return found[:1] * BATCH if _is_of_one_caption(batch) else found


def seen(regime: str, setting: Setting, purpose: str, batches: int, steps: int, prompted: bool) -> Seen:
    jobs = (Job(regime, setting, purpose, number, steps, prompted) for number in range(batches))
    return Seen.together([job.seen() for job in jobs])


def forget() -> None:
    """Deletes all batches."""
    shutil.rmtree(FOLDER, ignore_errors=True)


def start(quick: bool = False) -> None:
    """What a process needs before its first job. quick: keeps batches apart from those that a trained judge has seen."""
    global FOLDER
    if quick:
        FOLDER = results.QUICK / "text_to_image"
    torch.set_num_threads(1)
    open_eyes(quick)
    in_process.load_nodes()
    in_process.quiet()
