"""The demo model under classifier guidance, without a prompt, drawn through the pack's own nodes; batches are kept."""

import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

import nodes
from demo.architecture import WEIGHTS
from demo.train_classifier import CLASSES
from tools.environment import DEV

from . import in_process
from .earlier_scores import MA2023
from .guided_measures import Seen, look
from .in_process import pack_module, run_node
from .judge import WEIGHTS as JUDGE
from .noise_aware_twin import noise_aware_twin

FOLDER = DEV / "benchmarks" / "classifier_guidance"
FINE_TUNED = DEV / "benchmarks" / "fine_tuned"
STEPS, EVERY = 16, 4
BATCH = 60
CLEAN, NOISE_AWARE = "clean", "noise-aware"
TRIAL, TEST = 1, 2  # noise


@dataclass(frozen=True)
class Setting:
    """score, guidance: inputs of Guidance Score and of Apply Classifier Guidance, beside the scale. classifier: CLEAN,
    NOISE_AWARE or a folder of FINE_TUNED."""

    scale: float
    score: dict = field(default_factory=lambda: MA2023)
    guidance: dict = field(default_factory=dict)
    classifier: str = CLEAN


@dataclass(frozen=True)
class Job:
    """Batch `number` of a setting, from TRIAL or TEST noise."""

    setting: Setting
    noise: int
    number: int

    @property
    def file(self) -> Path:
        how = json.dumps([asdict(self.setting), STEPS, EVERY, BATCH, fingerprint(self.setting.classifier)])
        return FOLDER / f"{sha256(how.encode()).hexdigest()[:16]}-{self.noise}" / f"{self.number:04}.safetensors"

    def do(self) -> None:
        labels = torch.arange(BATCH) % len(CLASSES)
        pictures = draw(self.setting, labels, 1_000_000 * self.noise + self.number)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.file.with_suffix(".unfinished")
        save_file(vars(look(pictures, labels)), unfinished)
        unfinished.replace(self.file)


@cache
def fingerprint(classifier: str) -> str:
    """Of the networks that a batch is drawn and judged with. The noise-aware classifier is trained once and stays."""
    of_classifier = {CLEAN: WEIGHTS / "classifier", NOISE_AWARE: None}.get(classifier, FINE_TUNED / classifier)
    files = [*WEIGHTS.glob("*.safetensors"), JUDGE, *(of_classifier.glob("*.safetensors") if of_classifier else ())]
    return sha256(b"".join(sha256(file.read_bytes()).digest() for file in sorted(files))).hexdigest()


@torch.inference_mode()
def draw(setting: Setting, labels: Tensor, seed: int) -> Tensor:
    """Pictures [N, 3, 128, 128] in 0..1 for labels [N]."""
    model, empty, vae = demo()
    (score,) = run_node(
        "EntropyGuidanceScore", classifier=classifier(setting.classifier), labels=",".join(map(str, labels.tolist())),
        **setting.score,
    )  # fmt: skip
    (model,) = run_node(
        "EntropyGuidanceApply", model=model, score=score, vae=vae, decode="full", scale=setting.scale, every=EVERY,
        **setting.guidance,
    )  # fmt: skip
    latent = {"samples": torch.zeros(len(labels), 4, 16, 16)}
    (sampled,) = nodes.common_ksampler(model, seed, STEPS, 1.0, "euler", "simple", empty, empty, latent)
    return vae.decode(sampled["samples"]).movedim(-1, 1).float().clone()


@cache
def demo() -> tuple:
    """MODEL, the CONDITIONING of no prompt, and VAE."""
    model, clip, vae = run_node("EntropyGuidanceLoadDemo")
    return model, run_node("CLIPTextEncode", clip=clip, text="")[0], vae


@cache
def classifier(name: str):
    """A GUIDANCE_CLASSIFIER."""
    if name == CLEAN:
        return run_node("EntropyGuidanceLoadClassifier")[0]
    if name == NOISE_AWARE:
        return noise_aware_twin()
    with torch.inference_mode(False):
        module, labels, _ = pack_module("nodes.classifiers.hugging_face").load(FINE_TUNED / name, ())
        return pack_module("nodes.classifiers.guidance_classifier").guidance_classifier(name, module, labels)


def start() -> None:
    """What a process needs before its first job."""
    torch.set_num_threads(1)
    in_process.load_nodes()
    in_process.quiet()


def run(settings: list[Setting], noise: int, batches: int, workers: ProcessPoolExecutor, name: str) -> None:
    """Draws what is not there yet; the first batches of all settings, then the next."""
    jobs = {(job := Job(s, noise, number)).file: job for number in range(batches) for s in settings}
    waiting = [workers.submit(job.do) for file, job in jobs.items() if not file.exists()]
    for done in tqdm(as_completed(waiting), desc=name, total=len(waiting)):
        done.result()


def seen(setting: Setting, noise: int, batches: int) -> Seen:
    parts = [load_file(Job(setting, noise, number).file) for number in range(batches)]
    return Seen(*(torch.cat([part[f.name] for part in parts]) for f in fields(Seen)))
