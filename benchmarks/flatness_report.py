"""What `benchmarks.flatness` found: measures with standard errors, and which settings are good.

exact: share of pictures with exactly the caption's colour-shape pairs. relation: those, and where the caption names
one, their relation. Density, coverage and Fréchet distance: in the judge's features, to as many real pictures.
The standard errors are a bootstrap's over captions, the same captions for all rows. A setting is good where what it
falls short of the best of its network and layers, over τ and f together, is at most one standard error of that
difference. *Lost where tuned on another cell*: the setting that is best for one network and its layers, used on the
others; what it falls short of their best, on average. shift: how far the judge's features of a picture go from those
without guidance, relative to their length; *effect*: shift relative to that of uniform attention.
"""

from collections import Counter
from random import Random

import torch
from tqdm import tqdm

from demo.scenes import render, sample_scene

from . import results
from .density_coverage import coverage, density, within_balls
from .flatness_figure import MEASURES, cells_of, draw
from .judge import frechet, judge

LOWER_IS_BETTER = ("Fréchet",)
RESAMPLES = 100


def report(drawn: dict, settings: dict, quick: bool) -> None:
    """drawn: for each row (network, layers, setting) its pictures' features and answers."""
    real, others = (_real_features(settings["pictures"], seed) for seed in ("flatness", "ceiling"))
    measured = {row: _bootstrapped(found, real) for row, found in tqdm(drawn.items(), desc="bootstrap")}
    shortfalls = _shortfalls(measured)
    good = _good_settings(shortfalls)
    shifts = {row: _shift(found, drawn, row) for row, found in drawn.items()}
    found = {
        **settings,
        "resamples": RESAMPLES,
        "real pictures": _rounded(_measure(others, real)),
        "rows": {
            ", ".join(row): {**_as_json(row, values, good), "shift": round(shifts[row], 4)}
            for row, values in measured.items()
        },
        "cells that tell settings apart": _telling(shortfalls, good),
        "cells in which a setting is good": _common(shortfalls, good),
        "lost where tuned on another cell": _transfer(shortfalls),
        "effect": _effects(shifts),
    }
    _print(found)
    results.write("flatness", found, quick)
    draw(found, results.folder(quick))


@torch.inference_mode()
def _real_features(count: int, seed: str) -> torch.Tensor:
    rng, network = Random(seed), judge()
    pictures = torch.stack([render(sample_scene(rng, held_out=True)) for _ in range(count)])
    return torch.cat([network(batch) for batch in pictures.split(64)])


def _measure(features: torch.Tensor, real: torch.Tensor) -> dict[str, float]:
    within = within_balls(real, features)
    return {"density": density(within), "coverage": coverage(within), "Fréchet": frechet(real, features)}


def _bootstrapped(found: dict[str, torch.Tensor], real: torch.Tensor) -> torch.Tensor:
    """[1 + RESAMPLES, measures] of all pictures, and of captions drawn again with repetition."""
    features, within = found["features"], within_balls(real, found["features"])
    count = len(features)
    resamples = torch.randint(count, (RESAMPLES, count), generator=torch.Generator().manual_seed(0))
    return torch.tensor(
        [
            [
                found["exact"][chosen].float().mean(),
                found["relation"][chosen].float().mean(),
                density(within[:, chosen]),
                coverage(within[:, chosen]),
                frechet(real, features[chosen]),
            ]
            for chosen in (torch.arange(count), *resamples)
        ]
    )


def _gain(values: torch.Tensor) -> torch.Tensor:
    """Values [..., measures] with the sign that makes more better."""
    return values * torch.tensor([-1.0 if name in LOWER_IS_BETTER else 1.0 for name in MEASURES])


def _shortfalls(measured: dict) -> dict[tuple, dict[str, torch.Tensor]]:
    """How far each setting [1 + RESAMPLES] stays behind the best of its cell (network, layers, measure)."""
    cells = {}
    for model, layers in cells_of(measured):
        settings = {row.setting: _gain(values) for row, values in measured.items() if row[:2] == (model, layers)}
        settings["no guidance"] = _gain(measured[next(r for r in measured if r[::2] == (model, "no guidance"))])
        for column, name in enumerate(MEASURES):
            best = max(settings.values(), key=lambda values: values[0, column].item())[:, column]
            cells[model, layers, name] = {setting: best - values[:, column] for setting, values in settings.items()}
    return cells


def _good_settings(shortfalls: dict) -> dict[tuple, set[str]]:
    return {cell: {s for s, d in found.items() if d[0] <= d[1:].std()} for cell, found in shortfalls.items()}


def _transfer(shortfalls: dict) -> dict[str, dict]:
    """What a setting tuned on one cell falls short of the best in the others, on average, by the way it is set."""
    found = {}
    for name in MEASURES:
        cells = [cell for key, cell in shortfalls.items() if key[2] == name]
        lost = {way: _lost([[d for s, d in cell.items() if s[0] == way] for cell in cells]) for way in "τf"}
        difference = lost["f"] - lost["τ"]
        found[name] = _rounded({
            "τ": lost["τ"][0].item(), "f": lost["f"][0].item(),
            "f less τ": difference[0].item(), "standard error": difference[1:].std().item(),
        })  # fmt: skip
    return found


def _lost(cells: list[list[torch.Tensor]]) -> torch.Tensor:
    """[1 + RESAMPLES], from the shortfalls of the settings of each cell."""
    stacked = torch.stack([torch.stack(settings) for settings in cells])  # [cells, settings, 1 + RESAMPLES]
    chosen = torch.nn.functional.one_hot(stacked.argmin(1), stacked.shape[1]).movedim(-1, 1).float()
    there = torch.einsum("asr,bsr->abr", chosen, stacked)  # tuned on a, used on b
    others = len(cells) * (len(cells) - 1)
    return (there.sum((0, 1)) - there.diagonal().sum(-1)) / max(others, 1)


def _telling(shortfalls: dict, good: dict) -> dict[str, int]:
    """How many cells of each measure have a setting that is not good; elsewhere any choice is as good."""
    return Counter(cell[2] for cell, found in shortfalls.items() if len(good[cell]) < len(found))


def _common(shortfalls: dict, good: dict) -> dict[str, dict[str, int]]:
    """For each measure and over all of them: in how many of those cells a setting is good."""
    telling = [cell for cell, found in shortfalls.items() if len(good[cell]) < len(found)]
    counts = {name: Counter(s for cell in telling if cell[2] == name for s in good[cell]) for name in MEASURES}
    return {**counts, "all measures": sum(counts.values(), Counter())}


def _shift(found: dict, drawn: dict, row) -> float:
    plain = next(d for r, d in drawn.items() if (r.model, r.setting) == (row.model, "no guidance"))["features"]
    return ((found["features"] - plain).norm(dim=1) / plain.norm(dim=1)).mean().item()


def _effects(shifts: dict) -> dict[str, dict[str, float]]:
    whole = {row[:2]: shift for row, shift in shifts.items() if row.setting == "uniform"}
    settings = dict.fromkeys(row.setting for row in shifts if row.setting[0] in "τf")
    effects = {
        setting: torch.tensor([shift / whole[row[:2]] for row, shift in shifts.items() if row.setting == setting])
        for setting in settings
    }
    return {s: _rounded({"mean": e.mean().item(), "deviation": e.std().item()}) for s, e in effects.items()}


def _as_json(row, values: torch.Tensor, good: dict) -> dict:
    numbers = dict(zip(MEASURES, values[0].tolist()))
    errors = dict(zip(MEASURES, values[1:].std(0).tolist()))
    fine = [name for name in MEASURES if row.setting in good.get((row.model, row.layers, name), ())]
    return {**row._asdict(), **_rounded(numbers), "standard errors": _rounded(errors), "good": fine}


def _rounded(numbers: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in numbers.items()}


def _print(found: dict) -> None:
    print(f"\n{'network':24}{'layers':10}{'setting':14}" + "".join(f"{name:>18}" for name in MEASURES) + "   * good")
    for row in found["rows"].values():
        cells = (f"{row[n]:.3f} ± {row['standard errors'][n]:.3f}{'*' if n in row['good'] else ' '}" for n in MEASURES)
        print(f"{row['model']:24}{row['layers']:10}{row['setting']:14}" + "".join(f"{cell:>18}" for cell in cells))
    print("real pictures:", found["real pictures"])
    for name, counts in found["cells in which a setting is good"].items():
        print(
            f"{name:14}good in "
            + ", ".join(f"{setting} {n}" for setting, n in sorted(counts.items(), key=lambda i: -i[1]))
        )
    for name, lost in found["lost where tuned on another cell"].items():
        print(f"{name:14}lost where tuned on another cell: {lost}")
    for setting, effect in found["effect"].items():
        print(f"{setting}: effect {effect['mean']} ± {effect['deviation']}")
