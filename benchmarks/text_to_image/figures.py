"""The figures of `benchmarks.text_to_image`, drawn from its results file: `python -m benchmarks.text_to_image.figures`.

Each as PNG and SVG in docs. Okabe and Ito's colours, and a mark of its own for each line.
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tools.environment import REPOSITORY

FOLDER = REPOSITORY / "docs"
RESULTS = FOLDER / "results" / "text_to_image.json"
STYLES = {  # of the methods whose fronts are shown
    "CFG": ("#000000", "o", "-"),
    "CFG with interval": ("#000000", "D", ":"),
    "APG": ("#E69F00", "s", "-"),
    "autoguidance": ("#56B4E9", "P", "-"),
    "CADS": ("#F0E442", "h", "-"),
    "C-ERG": ("#CC79A7", "v", "-"),
    "I-ERG, same prompt": ("#009E73", "^", "-"),
    "I-ERG, empty negative": ("#0072B2", "<", "-"),
    "ERG": ("#D55E00", "*", "-"),
    "ERG + APG": ("#D55E00", "X", ":"),
}
LINES = [("#0072B2", "o"), ("#E69F00", "s"), ("#CC79A7", "^"), ("#009E73", "D")]
QUALITIES = ("exact", "density", "coverage")
plt.rcParams.update({"font.size": 11, "svg.fonttype": "none", "svg.hashsalt": "entropy guidance"})


def save(figure: Figure, name: str, folder: Path) -> None:
    for kind in ("png", "svg"):
        # No date in the file: the same results give the same bytes.
        figure.savefig(folder / f"{name}.{kind}", dpi=110, metadata={"Date": None} if kind == "svg" else None)
    plt.close(figure)


def fronts(results: dict, folder: Path) -> None:
    """Consistency and quality against diversity, each method over its scales."""
    regimes = {name: tables["prompted"] for name, tables in results["regimes"].items()}
    figure, panels = plt.subplots(2, len(regimes), figsize=(6.5 * len(regimes), 9), squeeze=False, layout="constrained")
    for column, (regime, table) in enumerate(regimes.items()):
        for panel, quality in zip(panels[:, column], ("exact", "density")):
            _front(panel, table, quality)
            panel.set(xlabel="coverage (diversity)", ylabel=f"{quality} (consistency)" if quality == "exact" else f"{quality} (quality)")  # fmt: skip
            panel.set_title(regime, loc="left")
    panels[0, 0].legend(fontsize=8, ncols=2)
    save(figure, "text-to-image-fronts", folder)


def _front(panel: Axes, table: dict, quality: str) -> None:
    none = table["rows"]["none"]
    panel.scatter(none["coverage"]["value"], none[quality]["value"], 90, "#999999", "p", label="no guidance", zorder=3)
    for name, (colour, mark, line) in STYLES.items():
        if name not in table["fronts"]:
            continue
        points = table["fronts"][name].values()
        x, y = ([point[measure]["value"] for point in points] for measure in ("coverage", quality))
        panel.plot(x, y, line, color=colour, marker=mark, markersize=7, label=name, linewidth=1.4)


def encoder_temperature(results: dict, folder: Path) -> None:
    """C-ERG's τc at several scales."""
    for regime, tables in results["regimes"].items():
        figure, panels = plt.subplots(1, len(QUALITIES), figsize=(13, 4), layout="constrained")
        for panel, measure in zip(panels, QUALITIES):
            for (w, points), (colour, mark) in zip(tables["encoder temperature"].items(), LINES):
                values = [row[measure]["value"] for row in points.values()]
                panel.plot(range(len(points)), values, color=colour, marker=mark, label=f"w = {w}")
            panel.set_xticks(range(len(points)), [*points])
            panel.set(xlabel="τc (1: no guidance)", title=measure)
            panel.axhline(tables["prompted"]["rows"]["none"][measure]["value"], color="#999999", linestyle=":")
        panels[0].legend(title="dotted: no guidance", fontsize=9)
        save(figure, f"encoder-temperature-{_file_name(regime)}", folder)


def initial_velocity(results: dict, folder: Path) -> None:
    """Marginal and conditional variance of the first prediction over scales."""
    regimes = results["regimes"]
    figure, panels = plt.subplots(2, len(regimes), figsize=(6.5 * len(regimes), 7), squeeze=False, layout="constrained")
    for column, (regime, tables) in enumerate(regimes.items()):
        for panel, kind in zip(panels[:, column], ("marginal", "conditional")):
            for (method, scales), (colour, mark) in zip(tables["initial velocity"].items(), LINES):
                values = [variances[kind] for variances in scales.values()]
                panel.plot([*map(float, scales)], values, color=colour, marker=mark, label=method)
            panel.set(xlabel="scale w", ylabel=f"{kind} variance of x̂0")
            panel.set_title(regime, loc="left")
    panels[0, 0].legend()
    save(figure, "initial-velocity", folder)


def inputs(results: dict, folder: Path) -> None:
    """What each input of each node does, the others at their defaults."""
    for regime, tables in results["regimes"].items():
        panels_of = [(node, name) for node, found in tables["inputs"].items() for name in found]
        figure, panels = plt.subplots(
            -(-len(panels_of) // 4), 4, figsize=(15, 2.9 * -(-len(panels_of) // 4)), layout="constrained"
        )
        for panel, (node, name) in zip(panels.flat, panels_of):
            points = tables["inputs"][node][name]
            for measure, (colour, mark) in zip(QUALITIES, LINES):
                values = [row[measure]["value"] for row in points.values()]
                panel.plot(range(len(points)), values, color=colour, marker=mark, label=measure)
            panel.set_xticks(range(len(points)), [*points], fontsize=9)
            panel.set_title(f"{node}: {name}", fontsize=10, loc="left")
        for panel in panels.flat[len(panels_of) :]:
            panel.set_axis_off()
        panels.flat[0].legend(fontsize=8)
        save(figure, f"inputs-{_file_name(regime)}", folder)


def _file_name(regime: str) -> str:
    return regime.replace(" ", "-")


def draw(results: dict, folder: Path) -> None:
    """All of them."""
    for figure in (fronts, encoder_temperature, initial_velocity, inputs):
        figure(results, folder)


if __name__ == "__main__":
    draw(json.loads(RESULTS.read_text()), FOLDER)
