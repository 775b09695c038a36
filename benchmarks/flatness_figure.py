"""The figure of `benchmarks.flatness`: measures over temperature and, beside it, over flatness.

A row of panels for each network, a pair of columns for each of the measures shown, a line for each choice of layers.
"""

from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt

MEASURES = ("exact", "relation", "density", "coverage", "Fréchet")
SHOWN = ("exact", "density", "Fréchet")
STYLES = (("#0072B2", "o"), ("#E69F00", "s"), ("#CC79A7", "^"))  # Okabe and Ito's colours


def cells_of(measured: dict) -> list[tuple[str, str]]:
    return [*dict.fromkeys((row.model, row.layers) for row in measured if row.layers != "none")]


def draw(measured: dict, good: dict, path: Path) -> None:
    """measured: for each row [1 + resamples, measures]. good: the good settings of (network, layers, measure)."""
    models = [*dict.fromkeys(row.model for row in measured)]
    figure, panels = plt.subplots(
        len(models), 2 * len(SHOWN), figsize=(15, 2.6 * len(models)), sharey=False, squeeze=False, layout="constrained"
    )
    for (i, model), (j, name), (k, way) in product(enumerate(models), enumerate(SHOWN), enumerate("τf")):
        panel = panels[i, 2 * j + k]
        if k:
            panel.sharey(panels[i, 2 * j])
        _panel(panel, measured, good, model, name, way)
        panel.set_title(f"{model}: {name}" if not k else " ", fontsize=9, loc="left")
        panel.set_xlabel("temperature τ" if way == "τ" else "flatness f", fontsize=8)
        panel.tick_params(labelsize=7)
    panels[0, 0].legend(fontsize=7, title="layers", title_fontsize=7)
    figure.savefig(path, dpi=90)


def _panel(panel, measured: dict, good: dict, model: str, name: str, way: str) -> None:
    """The measure from no guidance (left) to uniform attention (right); large marks are good settings."""
    column = MEASURES.index(name)
    plain = {row.setting: values for row, values in measured.items() if (row.model, row.layers) == (model, "none")}
    for layers, (colour, mark) in zip([c for m, c in cells_of(measured) if m == model], STYLES):
        line = {row.setting: v for row, v in measured.items() if row[:2] == (model, layers)}
        line = {"no guidance": plain["no guidance"], **{s: v for s, v in line.items() if s[0] == way or s == "uniform"}}
        x = [_place(setting, way) for setting in line]
        y, errors = [v[0, column] for v in line.values()], [v[1:, column].std() for v in line.values()]
        panel.errorbar(x, y, errors, color=colour, linewidth=1.2, elinewidth=0.6)
        sizes = [45 if setting in good[model, layers, name] else 8 for setting in line]
        panel.scatter(x, y, sizes, color=colour, marker=mark, label=layers, zorder=3)
    panel.axhline(plain["CFG"][0, column], color="black", linewidth=0.8, linestyle=":")
    if way == "τ":
        panel.invert_xaxis()


def _place(setting: str, way: str) -> float:
    ends = {"no guidance": 1.0, "uniform": 0.0} if way == "τ" else {"no guidance": 0.0, "uniform": 1.0}
    return ends[setting] if setting in ends else float(setting.split()[1])
