"""The figures of `benchmarks.sensitivity`."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from ..figure_style import LINES, save
from ..jackknife import HALF

MEASURES = ("exact", "density", "coverage")
COLUMNS = 4


def encoder_temperature(results: dict, folder: Path) -> None:
    """C-ERG's τc at several scales: figure 4 of https://arxiv.org/abs/2504.13987."""
    for regime, found in results["rows"].items():
        figure, panels = plt.subplots(1, len(MEASURES), figsize=(13, 4), layout="constrained")
        for panel, measure in zip(panels, MEASURES):
            for (w, points), (colour, mark) in zip(found["encoder temperature"].items(), LINES):
                _line(panel, points, measure, color=colour, marker=mark, label=f"w = {w}")
            panel.set_xticks(range(len(points)), [*points])
            panel.set(xlabel="τc (1: no guidance)", title=measure)
            panel.axhline(found["none"][measure]["value"], color="#999999", linestyle=":")
        panels[0].legend(title="dotted: no guidance", fontsize=9)
        save(figure, f"encoder-temperature-{_file_name(regime)}", folder)


def inputs(results: dict, folder: Path) -> None:
    """What each input of each node does, the others at their defaults."""
    for regime, found in results["rows"].items():
        none = dict.fromkeys(found["inputs"], found["none"])
        bars, name = "95 % of the difference from it", f"inputs-{_file_name(regime)}"
        input_panels(found["inputs"], none, results["defaults"], MEASURES, bars, name, folder)


def input_panels(
    inputs: dict,
    none: dict,
    defaults: dict,
    measures: tuple[str, ...],
    bars: str,
    name: str,
    folder: Path,
    dotted: str = "no guidance",
) -> None:
    """A panel for each node's input over its values. inputs: rows by node, input and value. none: by node, the row of the
    dotted lines. defaults: by node and input. bars, dotted: what they are; bars: nothing where there are none."""
    panels_of = [(node, name) for node, of_node in inputs.items() for name in of_node]
    rows = -(-len(panels_of) // COLUMNS)
    figure, panels = plt.subplots(rows, COLUMNS, figsize=(15, 2.9 * rows), layout="constrained", squeeze=False)
    for panel, (node, input_name) in zip(panels.flat, panels_of):
        points = inputs[node][input_name]
        for measure, (colour, mark) in zip(measures, LINES):
            _line(panel, points, measure, color=colour, marker=mark, label=measure)
            panel.axhline(none[node][measure]["value"], color=colour, linestyle=":", linewidth=1)
        if (default := defaults[node][input_name]) in points:
            place = [*points].index(default)
            panel.axvspan(place - 0.25, place + 0.25, color="#dddddd", zorder=0)
        panel.set_xticks(range(len(points)), [*points], fontsize=9)
        panel.set_title(f"{node}: {input_name}", fontsize=10, loc="left")
    for panel in panels.flat[len(panels_of) :]:
        panel.set_axis_off()
    lines = panels.flat[0].get_legend_handles_labels()
    title = "; ".join([f"dotted: {dotted}", *[f"bars: {bars}"] * bool(bars), "grey: the default"])
    figure.legend(*lines, loc="outside lower right", ncols=len(measures), title=title, fontsize=11)
    save(figure, name, folder)


def _line(panel: Axes, points: dict, measure: str, **style) -> None:
    """A measure over an input's values, with its interval, or else that of its difference from a baseline."""
    rows = [row[measure] for row in points.values()]
    below, above = zip(*map(_bar, rows))
    panel.errorbar(range(len(rows)), [row["value"] for row in rows], (below, above), capsize=2, elinewidth=0.8, **style)


def _bar(row: dict) -> tuple[float, float]:
    """How far it goes below and above a value."""
    if "low" in row:
        return row["value"] - row["low"], row["high"] - row["value"]
    return (HALF * row["error above"],) * 2


def _file_name(regime: str) -> str:
    return regime.replace(" ", "-")
