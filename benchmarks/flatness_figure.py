"""The figure of `benchmarks.flatness`, from its results: measures over temperature and, beside it, over flatness.

A row of panels for each network, a pair of columns for each of the measures shown, a line for each choice of layers.
"""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from .figure_style import LINES, save

MEASURES = ("exact", "relation", "density", "coverage", "Fréchet")
SHOWN = ("exact", "density", "Fréchet")
NAMES = {"τ": "temperature τ", "f": "flatness f"}
ENDS = {"τ": {"no guidance": 1.0, "uniform": 0.0}, "f": {"no guidance": 0.0, "uniform": 1.0}}


def cells_of(measured: dict) -> list[tuple[str, str]]:
    return [*dict.fromkeys((row.model, row.layers) for row in measured if row.layers != "none")]


def draw(found: dict, folder: Path) -> None:
    rows = [*found["rows"].values()]
    models = [*dict.fromkeys(row["model"] for row in rows)]
    size = (15, 3.4 * len(models) + 0.5)
    figure, panels = plt.subplots(len(models), 2 * len(SHOWN), figsize=size, squeeze=False, layout="constrained")
    for of_model, model in zip(panels, models):
        for j, name in enumerate(SHOWN):
            pair = of_model[2 * j : 2 * j + 2]
            pair[1].sharey(pair[0])
            pair[1].tick_params(labelleft=False)
            pair[0].set_title(f"{model}:\n{name}", fontsize=12, loc="left")
            for panel, way in zip(pair, NAMES):
                _panel(panel, [row for row in rows if row["model"] == model], name, way)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    save(figure, "flatness", folder)


def _panel(panel: Axes, rows: list[dict], name: str, way: str) -> None:
    """A network's measure from no guidance (left) to uniform attention (right); large marks are good settings."""
    none, cfg = (next(row for row in rows if row["setting"] == setting) for setting in ("no guidance", "CFG"))
    of_layers = dict.fromkeys(row["layers"] for row in rows if row["layers"] != "none")
    for layers, (colour, mark) in zip(of_layers, LINES):
        ours = [row for row in rows if row["layers"] == layers]
        line = [none, *(row for row in ours if row["setting"] == "uniform" or row["setting"].startswith(way))]
        line.sort(key=lambda row: abs(_place(row["setting"], way) - ENDS[way]["no guidance"]))
        x, y = [_place(row["setting"], way) for row in line], [row[name] for row in line]
        panel.errorbar(
            x, y, [row["standard errors"][name] for row in line], color=colour, linewidth=1.4, elinewidth=0.7
        )
        sizes = [70 if name in row["good"] else 14 for row in line[1:]]
        panel.scatter(x[1:], y[1:], sizes, color=colour, marker=mark, label=f"layers {layers}", zorder=3)
    panel.scatter(ENDS[way]["no guidance"], none[name], 50, color="black", label="no guidance", zorder=4)
    panel.axhline(cfg[name], color="black", linewidth=1, linestyle=":", label="CFG")
    panel.set_xlabel(NAMES[way])
    if way == "τ":
        panel.invert_xaxis()


def _place(setting: str, way: str) -> float:
    return ENDS[way][setting] if setting in ENDS[way] else float(setting.split()[1])
