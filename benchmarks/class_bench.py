"""The papers' setting in small: the class-conditional demo model under DDPM, drawn through the pack's own nodes."""

from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from demo.classes import train_classifiers, world
from tools.environment import DEV

from .earlier_scores import MA2023
from .in_process import pack_module, run_node

FOLDER = DEV / "benchmarks" / "class_conditional"
STEPS = 25  # of DDPM; the papers take 250
BATCH = 2 * len(world.CLASSES)
GAMMA = 0.3  # the paper's
CLEAN, NOISE_AWARE = "clean", "noise-aware"
BUNDLED = {
    CLEAN: "entropy-guidance-demo-classes",
    NOISE_AWARE: "entropy-guidance-demo-classes-noise-aware",
}
# Classifiers that are fine-tuned here, on the pictures that the clean one was trained on, and on what the model makes of
# them: the weights of guidance_core/calibration_objective.py.
OBJECTIVES = {"CE": {}, "Smooth-ECE": {"ece_weight": 1.0}, "entropy-aware": {"entropy_weight": 0.2}}
TRAINING = {"steps": 400, "learning_rate": 3e-4, "batch_size": 32}
PERCENTS = "0.25, 0.5, 0.75"


@dataclass(frozen=True)
class Setting:
    """One way of drawing. score: inputs of Guidance Score. classifier: a name of BUNDLED or OBJECTIVES. scale, gamma,
    tilt, variance: of Guided DDPM Sampler. apply: inputs of Apply Classifier Guidance, which guides Euler in the place of
    that. cfg: of the sampling, against `negative` (the class, or null for no class). erg: inputs of the node ERG, or None
    for none of it."""

    scale: float = 0.0
    score: dict = field(default_factory=lambda: MA2023)
    classifier: str = CLEAN
    gamma: float = GAMMA
    tilt: float = 0.0
    cfg: float = 1.0
    negative: str = "null"
    erg: dict | None = None
    dtype: str = "default"
    variance: str = "learned"
    apply: dict | None = None


@cache
def model(dtype: str = "default"):
    """The MODEL computing in a choice of ComfyUI's ModelComputeDtype, its residual blocks compiled, its weights in the
    layout in which bfloat16 is quickest on a CPU."""
    torch._dynamo.config.recompile_limit = 64  # a block's code is compiled for each of its shapes
    (loaded,) = run_node("ModelComputeDtype", model=run_node("EntropyGuidanceLoadADM")[0], dtype=dtype)
    loaded.model.diffusion_model.to(memory_format=torch.channels_last)
    residual = pack_module("nodes.class_conditional.adm_unet").ResBlock
    for block in loaded.model.diffusion_model.modules():
        if isinstance(block, residual):
            block.compile(dynamic=False)
    return loaded


@cache
def sigmas(steps: int, dtype: str = "default") -> Tensor:
    """As BasicScheduler's "normal": timesteps evenly from 999 to 0, and then no noise."""
    return run_node("BasicScheduler", model=model(dtype), scheduler="normal", steps=steps, denoise=1.0)[0]


@torch.inference_mode()
def draw(setting: Setting, number: int, seed: int, patched=None, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    """Batch `number` of a setting: pictures [BATCH, 3, 32, 32] in 0..1 and the classes asked for, in turn. The same noise
    for all settings; a sampler on a CPU takes its steps' noise from the seed behind the first's, so seeds are even.

    patched: a clone of the model, in the place of the setting's own.
    """
    labels = torch.arange(BATCH) % len(world.CLASSES)
    text = ",".join(map(str, labels.tolist()))
    unguided = model(setting.dtype)
    positive, null = run_node("EntropyGuidanceClassCondition", model=unguided, labels=text)
    score = run_node("EntropyGuidanceScore", classifier=classifier(setting.classifier), labels=text, **setting.score)[0]
    guided, sampler = patched or _guided(setting), _sampler(setting, score)
    if setting.apply is not None:
        (guided,) = run_node("EntropyGuidanceApply", model=guided, score=score, **setting.apply)
    sampled, _ = run_node(
        "SamplerCustom", model=guided, add_noise=True, noise_seed=2 * (1_000_000 * seed + number),
        cfg=setting.cfg, positive=positive, negative=null if setting.negative == "null" else positive, sampler=sampler, sigmas=sigmas(steps, setting.dtype),
        latent_image={"samples": torch.zeros(BATCH, 3, world.SIZE, world.SIZE)},
    )  # fmt: skip
    return ((sampled["samples"] + 1) / 2).clamp(0, 1), labels


def _guided(setting: Setting):
    unguided = model(setting.dtype)
    return unguided if setting.erg is None else run_node("EntropyGuidanceERG", model=unguided, **setting.erg)[0]


def _sampler(setting: Setting, score):
    if setting.apply is not None:
        return run_node("KSamplerSelect", sampler_name="euler")[0]
    return run_node(
        "EntropyGuidanceDDPMSampler", score=score, scale=setting.scale, gamma=setting.gamma, tilt=setting.tilt,
        variance=setting.variance,
    )[0]  # fmt: skip


@cache
def classifier(name: str):
    """A GUIDANCE_CLASSIFIER, fine-tuned where it is not there yet."""
    if name in BUNDLED:
        return run_node("EntropyGuidanceLoadClassifier", classifier_name=BUNDLED[name])[0]
    path = FOLDER / "classifiers" / name
    if not path.exists():
        _fine_tune(name, path)
    with torch.inference_mode(False):
        module, labels, _ = pack_module("nodes.classifiers.hugging_face").load(path, ())
        return pack_module("nodes.classifiers.guidance_classifier").guidance_classifier(name, module, labels)


@dataclass(frozen=True)
class _Drawn:
    """Pictures that are nowhere on disk, in the place of a folder's."""

    pixels: Tensor
    labels: list[int]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return self.pixels[index], self.labels[index]


def views(count: int, seed: int, percents: str = PERCENTS):
    """Example views of real pictures: finished, and as the model sees them at shares of a sampling."""
    clean = classifier(CLEAN)
    null = run_node("EntropyGuidanceClassCondition", model=model(), labels="")[0]
    view = pack_module("nodes.calibration.guidance_view").guidance_view(clean, model(), null)
    pictures = world.sample(count, torch.Generator().manual_seed(seed))
    make = pack_module("nodes.calibration.example_views").example_views
    drawn = _Drawn(pictures.pixels, pictures.labels.tolist())
    return make(view, drawn, percents, clean.patcher.load_device, f"{count} {seed}")


@torch.inference_mode()
def _fine_tune(name: str, path) -> None:
    formula = pack_module("guidance_core.calibration_objective").CalibrationObjective(**OBJECTIVES[name])
    wing = pack_module("nodes.calibration.fine_tuning")
    training = wing.Training(formula, **TRAINING, seed=0)
    examples, held_out = views(train_classifiers.FEW, 0), views(500, 2)  # seed 0: what the clean one was trained on
    module, tuning = wing.fine_tune(classifier(CLEAN), training, examples, held_out)
    print(f"{name}: best step {tuning.best_step}. {tuning.stopped}", flush=True)
    module.save(path, classifier(CLEAN).labels, training.settings)
