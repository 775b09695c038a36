"""Figure 2 of https://arxiv.org/abs/2504.13987, for each regime: each method's front over its scales."""

from pathlib import Path
from statistics import mean

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from ..figure_style import save
from ..jackknife import HALF
from .tables import TITLES

STYLES = {  # of the methods, Okabe and Ito's colours: rivals in greys, orange and light blue, ours in the strong ones
    "CFG": ("#000000", "o", "-"),
    "CFG with interval": ("#000000", "D", ":"),
    "APG": ("#E69F00", "s", "-"),
    "PAG": ("#777777", "v", "-"),
    "SEG": ("#777777", "^", "--"),
    "SAG": ("#777777", "d", ":"),
    "autoguidance": ("#56B4E9", "P", "-"),
    "CADS": ("#56B4E9", "h", "--"),
    "C-ERG": ("#CC79A7", "v", "-"),
    "I-ERG, defaults": ("#009E73", "2", ":"),
    "I-ERG, same prompt": ("#009E73", "^", "-"),
    "I-ERG, empty negative": ("#009E73", "<", "--"),
    "ERG, defaults": ("#D55E00", "1", ":"),
    "ERG": ("#D55E00", "*", "-"),
    "ERG, γ tuned": ("#D55E00", "p", "--"),
    "ERG + APG": ("#0072B2", "X", "-"),
    "ERG + APG, w from 2.1": ("#0072B2", "X", ":"),
    "ERG + CADS": ("#0072B2", "h", "-."),
    "ERG by flatness": ("#CC79A7", "8", "--"),
    "CFG + I-ERG of its own": ("#0072B2", ">", "--"),
}


def fronts(results: dict, folder: Path) -> None:
    """A figure for each regime: consistency and quality against diversity, each method over its scales; none where no fronts
    were drawn."""
    for regime, tables in results["regimes"].items():
        table = tables.get("prompted", {})
        if not table.get("fronts"):
            continue
        figure, panels = plt.subplots(1, 2, figsize=(13, 6), layout="constrained")
        consistency = table["consistency"]
        for panel, measure, what in zip(panels, (consistency, "density"), ("consistency", "quality")):
            _front(panel, table, measure)
            _interval(panel, table, measure)
            panel.set_xlabel("coverage (diversity)", fontsize=14)
            panel.set_ylabel(f"{measure} ({what})", fontsize=14)
            panel.tick_params(labelsize=13)
        figure.suptitle(TITLES[regime, "prompted"], fontsize=15)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=13)
        save(figure, f"text-to-image-fronts-{slug(regime)}", folder)


def slug(regime: str) -> str:
    """Of the names of files."""
    return regime.replace(" ", "-")


def _front(panel: Axes, table: dict, quality: str) -> None:
    (none,) = table["fronts"]["none"].values()
    panel.scatter(none["coverage"]["value"], none[quality]["value"], 110, "#777777", "p", label="no guidance", zorder=3)
    for name, (colour, mark, line) in STYLES.items():
        if name not in table["fronts"]:
            continue
        front = table["fronts"][name]
        x, y = ([point[measure]["value"] for point in front.values()] for measure in ("coverage", quality))
        panel.plot(x, y, line, color=colour, marker=mark, markersize=8, label=name, linewidth=1.6)
        panel.annotate(
            f"w {[*front][-1]}", (x[-1], y[-1]), (6, 4), textcoords="offset points", color=colour, fontsize=11
        )


def _interval(panel: Axes, table: dict, quality: str) -> None:
    """A cross beside the curves, as wide and high as 95 % of what a point is above no guidance, on average; nothing for tables
    without."""
    points = [point for name, front in table["fronts"].items() for point in front.values() if name != "none"]
    points = [point for point in points if "error above" in point[quality]]
    if not points:
        return
    wide, high = (HALF * mean(point[measure]["error above"] for point in points) for measure in ("coverage", quality))
    left, bottom = panel.get_xlim()[0], panel.get_ylim()[0]
    panel.errorbar(
        left + wide,
        bottom + high,
        high,
        wide,
        color="#777777",
        capsize=3,
        label="95 % of a point's difference from no guidance",
    )
