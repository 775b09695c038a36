"""CADS: noise on the prompt's embedding early in the sampling, less and less of it, so that pictures vary more.

Condition-Annealed Diffusion Sampler, https://arxiv.org/abs/2310.17347. The formulas are in
guidance_core/condition_annealing.py.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from comfy.patcher_extension import WrappersMP
from comfy.utils import repeat_to_batch_size
from comfy_api.latest import io

from ..guidance_core.condition_annealing import ConditionAnnealing, seeded_noise
from .common import CATEGORY

KEY = "entropy_guidance_cads"
BRANCHES = ("positive", "negative", "both")
POSITIVE = "positive"  # the name of its condition in each of ComfyUI's guiders
CLOSE = 1e-6  # of sigmas that are the same but for their rounding

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


class EntropyGuidanceCADS(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EntropyGuidanceCADS",
            display_name="Condition-Annealed Sampling (CADS)",
            category=CATEGORY,
            description="Makes pictures of one prompt more varied: early in the sampling, while composition is decided, the "
            "prompt is hidden in noise that is another one for each picture, and then comes back bit by bit. Costs "
            "no evaluation and works with CFG, ERG and any sampler.",
            search_aliases=["cads", "condition annealing", "diversity", "variety", "variation", "noise on the prompt"],
            inputs=[
                io.Model.Input("model", tooltip="The model to sample with, before or after LoRA and ERG."),
                io.Float.Input(
                    "noise_scale", default=0.25, min=0.0, max=100.0, step=0.01,
                    tooltip="Strength s of the noise, in units of the text embedding: more gives more variety and less of "
                    "the prompt. 0 changes nothing.",
                ),
                io.Float.Input(
                    "mixing", default=1.0, min=0.0, max=1.0, step=0.01,
                    tooltip="ψ: how far the noisy embedding is brought back to the mean and spread it had. 1 keeps pictures "
                    "clean, lower is more varied.",
                ),
                io.Float.Input(
                    "tau1", default=0.6, min=0.0, max=1.0, step=0.01,
                    tooltip="Time τ1 (1 is the start of the sampling, 0 its end) from which the prompt is fully there. "
                    "Lower gives more variety.",
                ),
                io.Float.Input(
                    "tau2", default=0.9, min=0.0, max=1.0, step=0.01,
                    tooltip="Time τ2 (1 is the start of the sampling, 0 its end) until which there is noise in the place of "
                    "the prompt. From here to tau1 the prompt comes back. Not below tau1.",
                ),
                io.Combo.Input(
                    "apply_to", options=list(BRANCHES), default=POSITIVE,
                    tooltip="Which prompt gets the noise: the positive one, the negative one, or both, each its own.",
                ),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
                    tooltip="Seed of the noise on the prompt. The same seed gives the same pictures again.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model with CADS: wire it to a sampler.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, model, noise_scale, mixing, tau1, tau2, apply_to, seed) -> io.NodeOutput:
        annealing = ConditionAnnealing(noise_scale, mixing, tau1, tau2)
        conditions = AnnealedConditions(annealing, apply_to, seed)
        model = model.clone()
        if not annealing.is_ordinary:
            model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, conditions)
            model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, conditions.sample)
        return io.NodeOutput(model)


@dataclass
class AnnealedConditions:
    """A wrapper for ComfyUI's CALC_COND_BATCH: an evaluation gets copies of its conditions, with noise on their text."""

    annealing: ConditionAnnealing
    apply_to: str
    seed: int
    _sampling: "_Sampling | None" = field(default=None, init=False, repr=False)  # the one that is running

    def __post_init__(self):
        if self.apply_to not in BRANCHES:
            raise ValueError(f"apply_to = {self.apply_to!r}: it must be one of {', '.join(BRANCHES)}.")

    def sample(self, executor, *args, **kwargs):
        """A wrapper for ComfyUI's OUTER_SAMPLE: says so where a whole sampling was left as it was."""
        outer, self._sampling = self._sampling, _Sampling(executor.class_obj)
        try:
            result = executor(*args, **kwargs)
            if not self._sampling.changed:
                logging.warning("Condition-Annealed Sampling had no effect in this sampling: %s", self._why_not())
            return result
        finally:
            self._sampling = outer

    def _why_not(self) -> str:
        if not self._sampling.has_branch:
            return f"it has no {self.apply_to} branch. A negative one needs cfg above 1."
        return (
            f"no step is as early as tau1 = {self.annealing.tau1} asks for. That is as it should be where another sampler "
            "does the first steps; with denoise below 1, lower tau1 and tau2."
        )

    def __call__(self, executor, model, conds, x, timestep, model_options):
        sampling = self._sampling or _Sampling()
        names = [name if self._is_annealed(name) else None for name in sampling.names(conds)]
        if not any(names):
            return executor(model, conds, x, timestep, model_options)
        sampling.has_branch = True
        step, kept = sampling.step(timestep, model_options, model.model_sampling, self.annealing)
        if kept < 1:
            run = _Step(self.annealing, kept, (self.seed, step), len(x), sampling)
            conds = [run.condition(entries, name) if name else entries for entries, name in zip(conds, names)]
            if not sampling.changed:
                raise RuntimeError(
                    f"apply_to = '{self.apply_to}': {type(model).__name__} gets no text there that CADS could put noise on. "
                    "Choose another branch, or take the node out for this model."
                )
        return executor(model, conds, x, timestep, model_options)

    def _is_annealed(self, name: str | None) -> bool:
        if name is None:
            return False
        return self.apply_to == "both" or (self.apply_to == POSITIVE) == (name == POSITIVE)


@dataclass
class _Sampling:
    """What is found once in a sampling and forgotten after it. Without a guider: one evaluation outside of a sampler."""

    guider: object = None
    has_branch: bool = False
    changed: bool = False
    _sigmas: list[float] | None = None
    _kept: list[float] = field(default_factory=list)
    _lengths: dict = field(default_factory=dict)

    def names(self, conds: list[list[dict] | None]) -> list[str | None]:
        """The guider's name of each condition; None where it is not evaluated, or another node's own.

        Nodes evaluate single conditions and copies of them, so neither place nor identity tells. The first entry's uuid
        does: it is the condition's own, while ComfyUI adds entries behind it that have uuids of other conditions.
        """
        of_guider = getattr(self.guider, "conds", None)
        if of_guider is None:
            names = [POSITIVE, *map(str, range(1, len(conds)))]
            return [name if entries else None for name, entries in zip(names, conds)]
        known = {entries[0]["uuid"]: name for name, entries in of_guider.items() if entries}
        return [known.get(entries[0]["uuid"]) if entries else None for entries in conds]

    def step(self, timestep, model_options: dict, model_sampling, annealing: ConditionAnnealing) -> tuple[int, float]:
        """The number of the step that an evaluation belongs to, and its γ."""
        now = timestep[0].item()
        schedule = model_options["transformer_options"].get("sample_sigmas")
        if self._sigmas is None or schedule is None:
            self._sigmas = [now] if schedule is None else schedule.tolist()
            self._kept = [kept_at(sigma, annealing, model_sampling.percent_to_sigma) for sigma in self._sigmas]
        step = step_at(now, self._sigmas)
        return step, self._kept[step]

    def length_of_text(self, name: str, condition, entries: list[dict], *place) -> int:
        """How much of dimension 1 of a condition [B, N, ...] is text; 0 for what is none."""
        tensor = condition.cond
        if name not in TEXT or not torch.is_tensor(tensor) or tensor.ndim < 2 or not tensor.is_floating_point():
            return 0
        key = (name, *place)
        if key not in self._lengths:  # compared once: it may wait for the device
            self._lengths[key] = _length_of_text(name, tensor, entries)
        return self._lengths[key]


def _length_of_text(name: str, tensor: torch.Tensor, entries: list[dict]) -> int:
    # All entries are asked: one that ComfyUI adds for a region has the values of one condition and the text of another.
    for text in (entry.get(TEXT[name]) for entry in entries):
        if torch.is_tensor(text) and text.ndim == tensor.ndim:
            beginning = tensor[:, : text.shape[1]]
            if beginning.shape == text.shape and torch.equal(beginning, text.to(beginning)):
                return text.shape[1]
    return 0 if name == "y" else tensor.shape[1]


@dataclass
class _Step:
    """Anneals the conditions of one evaluation. `key` is that of its noise, `batch` its number of pictures."""

    annealing: ConditionAnnealing
    kept: float
    key: tuple
    batch: int
    sampling: _Sampling

    def condition(self, entries: list[dict], name: str) -> list[dict]:
        """Copies of a condition's entries; regional prompts are several, each with noise of its own."""
        return [self._entry(entry, entries, name, number) for number, entry in enumerate(entries)]

    def _entry(self, entry: dict, entries: list[dict], *place) -> dict:
        annealed, model_conds = dict(entry), dict(entry["model_conds"])
        if TOKENS in model_conds:
            return annealed
        for name, condition in entry["model_conds"].items():
            length = self.sampling.length_of_text(name, condition, entries, *place)
            if length == 0:
                continue
            tensor = repeat_to_batch_size(condition.cond, self.batch)
            noise = seeded_noise(tensor[:, :length].shape, *self.key, *place, name)
            # It stays on its device: ComfyUI evaluates conditions on different devices one by one.
            text = self.annealing.anneal(tensor[:, :length], noise, self.kept)
            model_conds[name] = condition._copy_with(torch.cat([text, tensor[:, length:]], dim=1))
            annealed[TEXT[name]] = text  # where a second node after this one finds it
            self.sampling.changed = True
        annealed["model_conds"] = model_conds
        return annealed


def step_at(sigma: float, sigmas: list[float]) -> int:
    """The last step of a schedule that is reached at a sigma: evaluations between two steps belong to the first."""
    if sigmas[0] < sigmas[-1]:  # from image to noise
        reached = sum(start <= sigma * (1 + CLOSE) for start in sigmas)
    else:
        reached = sum(start >= sigma * (1 - CLOSE) for start in sigmas)
    return max(reached - 1, 0)


def kept_at(sigma: float, annealing: ConditionAnnealing, percent_to_sigma: Callable[[float], float]) -> float:
    """γ at a sigma. Its t is 1 − percent of ComfyUI, whose percent_to_sigma falls and is searched for the sigma."""
    early, late = 1 - annealing.tau2, 1 - annealing.tau1
    if sigma <= percent_to_sigma(late) * (1 + CLOSE):
        return 1.0
    if sigma >= percent_to_sigma(early) * (1 - CLOSE):
        return 0.0
    for _ in range(32):
        middle = (early + late) / 2
        if percent_to_sigma(middle) > sigma * (1 + CLOSE):
            early = middle
        else:
            late = middle
    return annealing.kept(1 - early)
