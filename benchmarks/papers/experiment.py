"""Pictures of a class-conditional model under DDPM with classifier guidance, through the pack's own nodes."""

import re
from dataclasses import dataclass
from pathlib import Path

import folder_paths
import numpy as np
import torch
from torch import Tensor

from ..classifier_guidance import METHODS
from ..in_process import pack_module, run_node
from .kept import fingerprint
from .measures import as_bytes

TRAINED_STEPS = 1000
NOISE_AWARE_SCALE = 0.5  # guided-diffusion's for its 128 × 128 model; its guidance has no sine either
MOST_BATCHES = 1_000_000  # of a seed, before another one's noise begins
DDPM = {"variance": "learned"}  # of Guided DDPM Sampler, as guided-diffusion samples


@dataclass(frozen=True)
class Course:
    """How pictures are drawn. gamma: of Guided DDPM Sampler with classifiers of clean pictures. scale: None for each
    method's own."""

    batch: int
    steps: int
    seed: int
    gamma: float
    scale: float | None

    def guidance(self, method: str) -> dict[str, float]:
        """Inputs of Guided DDPM Sampler for one of METHODS."""
        known = METHODS[method]
        own = NOISE_AWARE_SCALE if known.noise_aware else 1.0
        return {
            "scale": 0.0 if known.scales == (0.0,) else own if self.scale is None else self.scale,
            "gamma": 0.0 if known.noise_aware else self.gamma,
            "tilt": known.guidance.get("tilt", 0.0),
        }


class Experiment:
    """A model and its classifiers, for pictures of a size (height, width). Raises ValueError for what does not fit.

    diffusion, classifier, noise_aware: files, or names in ComfyUI's model folders; one of the classifiers may be None.
    """

    def __init__(
        self, course: Course, size: tuple[int, int], diffusion: str, classifier: str | None, noise_aware: str | None
    ):
        self.course, self.size = course, size
        _check_size(diffusion, size)
        name, path = _found("diffusion_models", diffusion)
        (self._model,) = run_node("EntropyGuidanceLoadADM", model_name=name)
        self._fingerprint, self._fingerprints = fingerprint(path), {}
        self._classes = len(self._model.model.class_names)
        if not self._classes:
            raise ValueError(f"diffusion: {diffusion} knows no classes. Use a class-conditional model.")
        given = {False: classifier, True: noise_aware}
        self._classifiers = {aware: self._loaded(name, aware) for aware, name in given.items() if name}
        sigmas = self._model.get_model_object("model_sampling").sigmas
        self._sigmas = torch.cat([sigmas[respaced(course.steps)], sigmas.new_zeros(1)]).cpu()

    def _loaded(self, classifier: str, noise_aware: bool):
        name, path = _found("classifiers", classifier)
        (loaded,) = run_node("EntropyGuidanceLoadClassifier", classifier_name=name)
        if loaded.noise_aware != noise_aware:
            kinds = {False: "--classifier (of clean pictures)", True: "--noise-aware"}
            raise ValueError(f"{classifier} is not for {kinds[noise_aware]}, but for {kinds[not noise_aware]}.")
        if len(loaded.labels) != self._classes:
            raise ValueError(f"{classifier} knows {len(loaded.labels)} classes, and the model {self._classes}.")
        self._fingerprints[noise_aware] = fingerprint(path)
        return loaded

    def methods(self) -> list[str]:
        """Those of METHODS for which there is a classifier."""
        return [name for name in METHODS if self._classifier(name)]

    def _classifier(self, method: str):
        known = METHODS[method]
        unguided = known.scales == (0.0,)
        return next((c for aware, c in self._classifiers.items() if unguided or aware == known.noise_aware), None)

    def settings(self, method: str) -> dict:
        """All that a batch of a method depends on, but for versions and the processor."""
        course, guidance = self.course, self.course.guidance(method)
        drawn = {"batch": course.batch, "steps": course.steps, "seed": course.seed, **DDPM, "size": self.size}
        classifier = self._fingerprints[self._classifier(method).noise_aware]
        guided = {**guidance, **METHODS[method].score, "classifier": classifier} if guidance["scale"] else {}
        return {"diffusion": self._fingerprint, **drawn, **guided}

    @torch.inference_mode()
    def draw(self, method: str, number: int, count: int) -> Tensor:
        """The pictures of a batch, uint8 [count, 3, H, W]: of the same classes and from the same noise for all methods."""
        classes = np.random.default_rng((self.course.seed, number)).integers(self._classes, size=self.course.batch)
        labels = ",".join(map(str, classes[:count]))
        (score,) = run_node(
            "EntropyGuidanceScore", classifier=self._classifier(method), labels=labels, **METHODS[method].score
        )
        (sampler,) = run_node("EntropyGuidanceDDPMSampler", score=score, **self.course.guidance(method), **DDPM)
        positive, _ = run_node("EntropyGuidanceClassCondition", model=self._model, labels=labels)
        sampled, _ = run_node(
            "SamplerCustom", model=self._model, add_noise=True, noise_seed=self._noise_seed(number), cfg=1.0,
            positive=positive, negative=positive, sampler=sampler, sigmas=self._sigmas,
            latent_image={"samples": torch.zeros(count, 3, *self.size)},
        )  # fmt: skip
        return as_bytes(sampled["samples"])

    def _noise_seed(self, number: int) -> int:
        """Even: on a CPU, ComfyUI draws the noise of steps from the seed behind that of the first noise."""
        return 2 * (MOST_BATCHES * self.course.seed + number)


def _check_size(diffusion: str, size: tuple[int, int]) -> None:
    """For a file that is called by its size, as published; the weights would draw any."""
    named = re.match(r"(\d+)x\1_", Path(diffusion).name)
    if named and size != (int(named[1]),) * 2:
        raise ValueError(f"reference: its pictures are {size[1]} × {size[0]}, and {diffusion} draws others.")


def respaced(steps: int) -> Tensor:
    """Timesteps [steps] of a model that was trained on 1000, evenly from the last to the first. Raises ValueError."""
    if not 2 <= steps <= TRAINED_STEPS:
        raise ValueError(f"steps = {steps}: it must be in 2..{TRAINED_STEPS}, the steps that the model was trained on.")
    return torch.linspace(TRAINED_STEPS - 1, 0, steps, dtype=torch.float64).round().long()


def _found(folder: str, name: str) -> tuple[str, Path]:
    """What a loader calls a file or folder, and where it is; made known to this process where it is elsewhere."""
    path = Path(name)
    if path.exists():
        folder_paths.add_model_folder_path(folder, str(path.resolve().parent), is_default=True)
        return path.name, path
    models, classifiers = (pack_module(f"nodes.{wing}.files") for wing in ("class_conditional", "classifiers"))
    bundled = {"diffusion_models": {models.DEMO: models.DEMO_FILE}, "classifiers": classifiers.BUNDLED}[folder]
    roots = map(Path, folder_paths.get_folder_paths(folder))
    return name, bundled.get(name) or next((root / name for root in roots if (root / name).exists()), path)
