"""The methods that are compared, and what a search may choose of each: functions from an Optuna trial to a Setting."""

from collections.abc import Callable

from optuna import Trial

from .drawing import SAME, Setting, apg_cfg

LAYERS = ("5", "40%-50%", "30%-60%", "50%-80%", "0%-30%", "all")
ENCODER_LAYERS = ("all", "0%-50%", "50%-100%", "40%-80%")
# The nodes as they come, of which only w is searched: ERG and ERG Text Encoder.
ERG_DEFAULTS = {"temperature": 0.3, "layers": "40%-50%", "start_percent": 0.0}
CLIP_DEFAULTS = {"temperature": 0.01, "layers": "all"}
ENCODER_TEMPERATURES = (0.0, 0.01, 0.03, 0.1, 0.3)  # from there to 3 nothing happens
Space = Callable[[Trial], Setting]


def _scale(trial: Trial, low: float = 1.1, high: float = 5.0) -> float:
    return trial.suggest_float("w", low, high, log=True)


def _window(trial: Trial) -> dict:
    return {
        "start_percent": trial.suggest_float("κ", 0.0, 0.4, step=0.2),
        "end_percent": trial.suggest_float("end", 0.5, 1.0, step=0.1),
    }


def _erg(trial: Trial, **more) -> dict:
    return {"temperature": trial.suggest_float("τ", 0.0, 0.9, step=0.1), **_where(trial), **more}


def _flat(trial: Trial) -> dict:
    return {"flatness": trial.suggest_float("f", 0.05, 1.0, step=0.05), **_where(trial)}


def _where(trial: Trial) -> dict:
    return {
        "layers": trial.suggest_categorical("layers", LAYERS),
        "start_percent": trial.suggest_float("κ", 0.0, 0.4, step=0.2),
    }


def _clip(trial: Trial) -> dict:
    return {
        "temperature": trial.suggest_categorical("τc", ENCODER_TEMPERATURES),
        "layers": trial.suggest_categorical("layers of the encoder", ENCODER_LAYERS),
    }


def _apg(trial: Trial) -> dict:
    return {
        "eta": trial.suggest_float("η", 0.0, 1.0, step=0.25),
        "norm_threshold": trial.suggest_categorical("r", (0.0, 4.0, 8.0, 16.0)),
        "momentum": trial.suggest_float("β", -0.75, 0.0, step=0.25),
    }


def _cads(trial: Trial, **more) -> dict:
    return {
        "noise_scale": trial.suggest_float("s", 0.1, 1.2, step=0.1),
        "tau1": trial.suggest_float("τ1", 0.5, 0.8, step=0.1),
        "tau2": trial.suggest_float("τ2", 0.8, 1.0, step=0.1),
        **more,
    }


def _rival(trial: Trial, method: str) -> dict:
    chosen = {
        "method": method,
        "scale": trial.suggest_float("scale", 0.1, 8.0, log=True),
        "layers": trial.suggest_categorical("layers", LAYERS),
    }
    if method == "SEG":
        chosen["sigma"] = trial.suggest_categorical("σ", (1.0, 2.0, float("inf")))
    if method == "SAG":
        chosen["sigma"] = trial.suggest_categorical("σ", (1.0, 2.0, 4.0))
    return chosen


def _with_interval(trial: Trial) -> Setting:
    window = {"temperature": 1.0, "outside": "no guidance", **_window(trial)}
    return Setting(_scale(trial), erg=window)


def _beside_cfg(method: str) -> Space:
    return lambda trial: Setting(trial.suggest_float("w", 1.0, 4.0), rival=_rival(trial, method))


def _step_size(trial: Trial) -> float:
    return trial.suggest_float("γ", 0.5, 2.0, step=0.25)


def _own_scale(trial: Trial) -> float:
    return trial.suggest_float("scale", 0.1, 3.0, log=True)


METHODS: dict[str, Space] = {
    "none": lambda trial: Setting(),
    "CFG": lambda trial: Setting(_scale(trial)),
    "CFG with interval": _with_interval,
    "APG": lambda trial: Setting(apg_cfg(_scale(trial)), apg=_apg(trial)),
    "PAG": _beside_cfg("PAG"),
    "SEG": _beside_cfg("SEG"),
    "SAG": _beside_cfg("SAG"),
    "autoguidance": lambda trial: Setting(_scale(trial), SAME, weak_model=True),
    "CADS": lambda trial: Setting(_scale(trial), cads=_cads(trial)),
    "C-ERG": lambda trial: Setting(_scale(trial), SAME, clip=_clip(trial)),
    "I-ERG, defaults": lambda trial: Setting(_scale(trial), SAME, ERG_DEFAULTS),
    "I-ERG, same prompt": lambda trial: Setting(_scale(trial), SAME, _erg(trial)),
    "I-ERG, empty negative": lambda trial: Setting(_scale(trial), erg=_erg(trial)),
    "ERG, defaults": lambda trial: Setting(_scale(trial), SAME, ERG_DEFAULTS, CLIP_DEFAULTS),
    "ERG": lambda trial: Setting(_scale(trial), SAME, _erg(trial), _clip(trial)),
    "ERG, γ tuned": lambda trial: Setting(_scale(trial), SAME, _erg(trial, step_size=_step_size(trial)), _clip(trial)),
    "ERG + APG": lambda trial: Setting(apg_cfg(_scale(trial)), SAME, _erg(trial), _clip(trial), apg=_apg(trial)),
    "ERG + CADS": lambda trial: Setting(
        _scale(trial), SAME, _erg(trial), _clip(trial), _cads(trial, apply_to="both, same noise")
    ),
    "ERG by flatness": lambda trial: Setting(_scale(trial), SAME, _flat(trial), _clip(trial)),
    "CFG + I-ERG of its own": lambda trial: Setting(_scale(trial), erg=_erg(trial, scale=_own_scale(trial))),
}
UNCONDITIONAL: dict[str, Space] = {
    "none": METHODS["none"],
    "PAG": lambda trial: Setting(rival=_rival(trial, "PAG")),
    "SEG": lambda trial: Setting(rival=_rival(trial, "SEG")),
    "SAG": lambda trial: Setting(rival=_rival(trial, "SAG")),
    "autoguidance": METHODS["autoguidance"],
    "I-ERG": METHODS["I-ERG, same prompt"],
    "I-ERG by flatness": lambda trial: Setting(_scale(trial), SAME, _flat(trial)),
    "I-ERG + APG": lambda trial: Setting(apg_cfg(_scale(trial)), SAME, _erg(trial), apg=_apg(trial)),
}
