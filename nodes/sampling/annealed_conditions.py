"""Condition annealing in ComfyUI's sampling: whose text gets noise, in which steps, and where a condition keeps its text.

The formulas are in guidance_core/condition_annealing.py.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.context_windows import ContextWindowABC
from comfy.model_base import BaseModel
from comfy.patcher_extension import WrapperExecutor
from comfy.utils import repeat_to_batch_size

from ...guidance_core.condition_annealing import ConditionAnnealing, seeded_noise
from ...guidance_core.named_choice import check_choice
from ...guidance_core.sampling_steps import step_at
from ..common.steps_to_draw import NO_STEP, has_a_step
from ..feedback import Feedback, StepCount
from .condition_names import NEGATIVE, POSITIVE, ConditionNames, Conditions, is_positive

BOTH, BOTH_ALIKE = "both", "both, same noise"
BRANCHES = (POSITIVE, NEGATIVE, BOTH, BOTH_ALIKE)
WHOSE_NOISE = {BOTH: "noise on both prompts", BOTH_ALIKE: "the same noise on both prompts"}

# What ComfyUI's models call the text they read, and where the condition still has that text as it was before a model put
# sizes (SDXL), seconds (Stable Audio) or padding behind it.
TEXT = {
    "c_crossattn": "cross_attn",
    "y": "pooled_output",
    "clip": "pooled_output",  # Stable Cascade, as the two below
    "clip_text_pooled": "pooled_output",
    "clip_text": "cross_attn",
    "encoder_hidden_states_t5": "conditioning_mt5xl",  # HunyuanDiT
    "encoder_hidden_states_llama3": "conditioning_llama3",  # HiDream
    "txt_byt5": "conditioning_byt5small",  # HunyuanImage
}
TOKENS = "input_ids"  # HiDream-O1 reads the prompt within its network: what it gets as an embedding is not used
KEEPS_PROMPTS = "QwenImage21Transformer2DModel"  # from the first step to the last, unless it is told not to
FRAMES = "num_video_frames"  # of models whose batch is one video (SVD, SV3D), which has one noise


@dataclass
class AnnealedConditions:
    """A wrapper for ComfyUI's CALC_COND_BATCH: an evaluation gets copies of its conditions, with noise on their text."""

    annealing: ConditionAnnealing
    apply_to: str
    seed: int
    feedback: Feedback
    _sampling: "_Sampling | None" = field(default=None, init=False, repr=False)  # the one that is running

    def __post_init__(self) -> None:
        check_choice("apply_to", self.apply_to, BRANCHES)

    def sample(self, executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Any:
        """A wrapper for ComfyUI's OUTER_SAMPLE: says what was done, or why a whole sampling was left as it was."""
        sampling = _Sampling(ConditionNames(executor.class_obj))
        outer, self._sampling = self._sampling, sampling
        try:
            result = executor(*args, **kwargs)
            if has_a_step(*args, **kwargs):
                self._say_what_was_done(sampling)
            else:
                self.feedback.say_without_effect(NO_STEP)
            return result
        finally:
            self._sampling = outer

    def _say_what_was_done(self, sampling: "_Sampling") -> None:
        if sampling.changed:
            noise = WHOSE_NOISE.get(self.apply_to, f"noise on the {self.apply_to} prompt")
            self.feedback.say("{} in {} of {} steps".format(noise, *sampling.steps.read()))
        else:
            self.feedback.warn_without_effect("Condition-Annealed Sampling", self._why_not(sampling))

    def _why_not(self, sampling: "_Sampling") -> str:
        if not sampling.has_branch:
            return f"it has no {self.apply_to} branch. A negative one needs cfg above 1."
        return (
            f"no step is as early as tau1 = {self.annealing.tau1} asks for. That is as it should be where another sampler "
            "does the first steps; with denoise below 1, lower tau1 and tau2."
        )

    def __call__(
        self,
        executor: WrapperExecutor,
        model: BaseModel,
        conds: Conditions,
        x: torch.Tensor,
        timestep: torch.Tensor,
        model_options: dict[str, Any],
    ) -> Any:
        with self.feedback.saying_errors():
            annealed = self._annealed(model, conds, x, timestep, model_options)
        options = model_options if annealed is conds else _without_memory_of_prompts(model, model_options)
        return executor(model, annealed, x, timestep, options)

    def _annealed(
        self,
        model: BaseModel,
        conds: Conditions,
        x: torch.Tensor,
        timestep: torch.Tensor,
        model_options: dict[str, Any],
    ) -> Conditions:
        """The conditions of an evaluation, with noise where this step has any."""
        sampling = self._sampling or _Sampling()
        names = [name if self._is_annealed(name) else None for name in sampling.names.of(conds)]
        if not any(names):
            return conds
        sampling.has_branch = True
        step, kept = sampling.step(timestep, model_options, model.model_sampling, self.annealing)
        sampling.steps.note(timestep, model_options["transformer_options"], kept < 1)
        if kept < 1:
            window = model_options["transformer_options"].get("context_window")
            run = _Step(self.annealing, kept, (self.seed, step), len(x), window, sampling, self.apply_to == BOTH_ALIKE)
            conds = [
                run.condition(entries, name) if name and entries else entries for entries, name in zip(conds, names)
            ]
            if not sampling.changed:
                raise RuntimeError(
                    f"apply_to = '{self.apply_to}': {type(model).__name__} gets no text there that CADS could put noise on. "
                    "Choose another branch, or take the node out for this model."
                )
        return conds

    def _is_annealed(self, name: str | None) -> bool:
        if name is None:
            return False
        return self.apply_to in WHOSE_NOISE or (self.apply_to == POSITIVE) == is_positive(name)


def _without_memory_of_prompts(model: BaseModel, model_options: dict[str, Any]) -> dict[str, Any]:
    """Model options for an evaluation with noise on its text, which no later one is to read again: neither with the sampler
    ar_video, whose models keep what they read of a prompt in the first step, nor with Qwen-Image 2.1."""
    options = model_options["transformer_options"]
    if state := options.get("ar_state"):
        options = {
            **options,
            "ar_state": {**state, "crossattn_caches": [{"is_init": False} for _ in state["crossattn_caches"]]},
        }
    if type(model.diffusion_model).__name__ == KEEPS_PROMPTS:
        options = {**options, "qwen_image21_cache": {"device": "off"}}
    return {**model_options, "transformer_options": options}


@dataclass
class _Sampling:
    """What is found once in a sampling and forgotten after it. Without a guider: one evaluation outside of a sampler."""

    names: ConditionNames = field(default_factory=ConditionNames)
    has_branch: bool = False
    changed: bool = False
    steps: StepCount = field(default_factory=StepCount)
    _sigmas: list[float] | None = None
    _kept: list[float] = field(default_factory=list)
    _lengths: dict[tuple[Any, ...], int] = field(default_factory=dict)
    _noisy_step: tuple[int, int] | None = None  # seed and step of what is in:
    _noise: dict[tuple[Any, ...], torch.Tensor] = field(default_factory=dict)

    def step(
        self, timestep: torch.Tensor, model_options: dict[str, Any], model_sampling: Any, annealing: ConditionAnnealing
    ) -> tuple[int, float]:
        """The number of the step that an evaluation belongs to, and its γ."""
        now = timestep[0].item()
        schedule = model_options["transformer_options"].get("sample_sigmas")
        if self._sigmas is None or schedule is None:
            self._sigmas = [now] if schedule is None else schedule.tolist()
            self._kept = [annealing.kept_at(sigma, model_sampling.percent_to_sigma) for sigma in self._sigmas]
        step = step_at(now, self._sigmas)
        return step, self._kept[step]

    def noise(self, shape: tuple[int, ...], step: tuple[int, int], *place: Any) -> torch.Tensor:
        """Noise [B, ...] for a place in the conditions, made once a step: samplers and nodes evaluate one several times."""
        if step != self._noisy_step:
            self._noisy_step, self._noise = step, {}
        key = shape, place
        if key not in self._noise:
            self._noise[key] = seeded_noise(shape, *step, *place)
        return self._noise[key]

    def length_of_text(self, name: str, condition: Any, entries: list[dict[str, Any]], *place: Any) -> int:
        """How much of dimension 1 of a condition [B, N, ...] is text; 0 for what is none."""
        tensor = condition.cond
        if name not in TEXT or not torch.is_tensor(tensor) or tensor.ndim < 2 or not tensor.is_floating_point():
            return 0
        key = (name, tensor.shape[1], *place)  # nodes that evaluate regions one by one number each of them 0
        if key not in self._lengths:  # compared once: it may wait for the device
            self._lengths[key] = _length_of_text(name, tensor, entries)
        return self._lengths[key]


def _length_of_text(name: str, tensor: torch.Tensor, entries: list[dict[str, Any]]) -> int:
    # All entries are asked: one that ComfyUI adds for a region has the values of one condition and the text of another.
    for text in (entry.get(TEXT[name]) for entry in entries):
        if torch.is_tensor(text) and text.ndim == tensor.ndim:
            beginning = tensor[:, : text.shape[1]]
            if beginning.shape == text.shape and torch.equal(beginning, text.to(beginning)):
                return text.shape[1]
    return 0 if name == "y" else tensor.shape[1]


@dataclass
class _Step:
    """Anneals the conditions of one evaluation. `key` is that of its noise, the seed and the step, `batch` its number of
    pictures, `window` the context window that it is of, if any. alike: whether texts of one shape have the same noise."""

    annealing: ConditionAnnealing
    kept: float
    key: tuple[int, int]
    batch: int
    window: ContextWindowABC | None
    sampling: _Sampling
    alike: bool

    def condition(self, entries: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
        """Copies of a condition's entries; regional prompts are several, each with noise of its own."""
        return [self._entry(entry, entries, name, number) for number, entry in enumerate(entries)]

    def _entry(self, entry: dict[str, Any], entries: list[dict[str, Any]], branch: str, number: int) -> dict[str, Any]:
        annealed, model_conds = dict(entry), dict(entry["model_conds"])
        if TOKENS in model_conds:
            return annealed
        for name, condition in entry["model_conds"].items():
            length = self.sampling.length_of_text(name, condition, entries, branch, number)
            if length == 0:
                continue
            tensor = repeat_to_batch_size(condition.cond, self.batch)
            shape, place = tensor[:, :length].shape, (BOTH_ALIKE if self.alike else branch, number, name)
            if FRAMES in model_conds:
                noise = self.sampling.noise((1, *shape[1:]), self.key, *place).expand(shape)
            else:
                noise = self._noise(shape, *place)
            # It stays on its device: ComfyUI evaluates conditions on different devices one by one.
            text = self.annealing.anneal(tensor[:, :length], noise, self.kept)
            model_conds[name] = condition._copy_with(torch.cat([text, tensor[:, length:]], dim=1))
            annealed[TEXT[name]] = text  # where a second node after this one finds it
            self.sampling.changed = True
        annealed["model_conds"] = model_conds
        return annealed

    def _noise(self, shape: tuple[int, ...], *place: Any) -> torch.Tensor:
        """Noise [B, ...] for pictures; one that is in several windows over the batch has the same in each."""
        if self.window is None or self.window.dim != 0:
            return self.sampling.noise(shape, self.key, *place)
        return self.window.get_tensor(self.sampling.noise((self.window.total_frames, *shape[1:]), self.key, *place))
