"""The same search for every method: Optuna's TPE, so many trials on captions and noise that no table is made of, and the best
once more on more of them, since few pictures tell good settings from lucky ones badly."""

from dataclasses import dataclass
from functools import cache

import optuna
from optuna.samplers import TPESampler

from .drawing import Setting
from .kept import BATCH, seen
from .measures import Seen, measure, real
from .methods import METHODS, UNCONDITIONAL

REAL = 512  # pictures that drawn ones are compared with
RANDOM = 6  # trials before the sampler learns from those before
START = {  # the first trial of every method: near the nodes' defaults, at a gentle scale
    "w": 1.5, "τ": 0.3, "f": 0.2, "layers": "40%-50%", "κ": 0.0, "end": 1.0, "γ": 1.0, "scale": 0.5, "σ": 2.0,
    "τc": 0.01, "layers of the encoder": "all", "η": 0.0, "r": 8.0, "β": -0.5, "s": 0.1, "τ1": 0.6, "τ2": 0.9,
}  # fmt: skip


@dataclass(frozen=True)
class Search:
    """For one method of a table. trials: settings tried, each on `batches` batches. finalists: how many of the best are
    measured again, on `final_batches`, the first ones among them. consistency: its measure, `asked` or `exact`.
    real_pictures: how many the drawn ones are compared with."""

    regime: str
    method: str
    prompted: bool
    trials: int
    batches: int
    finalists: int
    final_batches: int
    steps: int
    consistency: str
    real_pictures: int

    def gain(self, measured: dict[str, float]) -> float:
        """What it makes as large as it can: consistency + density + coverage, or, where nothing was asked for, the Fréchet
        distance as small."""
        if not self.prompted:
            return -measured["Fréchet"]
        return sum(measured[name] for name in (self.consistency, "density", "coverage"))

    def measured(self, setting: Setting, batches: int) -> dict:
        """A row of what was tried: the setting, its gain, measures and how many pictures they are of."""
        drawn = seen(self.regime, setting, "tuning", batches, self.steps, self.prompted)
        found = measure(_reference(self.real_pictures, self.prompted), drawn)
        return {"setting": setting, "pictures": batches * BATCH, "gain": self.gain(found), **found}


@cache  # the same for all methods that this process searches
def _reference(count: int, held_out: bool) -> Seen:
    return real(count, "text to image, tuning reference", held_out)


def find(search: Search) -> list[dict]:
    """What was tried, the best first: setting, gain and measures. The same again from kept batches."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = (METHODS if search.prompted else UNCONDITIONAL)[search.method]
    tried: dict[str, dict] = {}

    def objective(trial: optuna.Trial) -> float:
        setting = space(trial)
        key = repr(setting)
        if key not in tried:
            tried[key] = search.measured(setting, search.batches)
        return tried[key]["gain"]

    study = optuna.create_study(direction="maximize", sampler=TPESampler(seed=0, n_startup_trials=RANDOM))
    study.enqueue_trial(START)
    # A method without choices is tried once.
    study.optimize(objective, search.trials if search.method != "none" else 1)
    ranked = sorted(tried.values(), key=_gain)
    best, others = ranked[: search.finalists], ranked[search.finalists :]
    if len(best) > 1:
        best = sorted((search.measured(row["setting"], search.final_batches) for row in best), key=_gain)
    return [*best, *others]


def _gain(row: dict) -> float:
    return -row["gain"]
