"""Figure 2 of https://arxiv.org/abs/2504.13987: each method's front over its scales."""

from pathlib import Path
from statistics import mean

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from ..figure_style import save
from ..jackknife import HALF
from .tables import TITLES

STYLES = {  # of the methods: a colour for a kind
    "CFG": ("#000000", "o", "-"),
    "CFG with interval": ("#000000", "D", ":"),
    "APG": ("#E69F00", "s", "-"),
    "PAG": ("#999999", "v", "-"),
    "SEG": ("#999999", "^", "--"),
    "SAG": ("#999999", "d", ":"),
    "autoguidance": ("#56B4E9", "P", "-"),
    "CADS": ("#F0E442", "h", "-"),
    "C-ERG": ("#CC79A7", "v", "-"),
    "I-ERG, same prompt": ("#009E73", "^", "-"),
    "I-ERG, empty negative": ("#0072B2", "<", "-"),
    "ERG": ("#D55E00", "*", "-"),
    "ERG, γ tuned": ("#D55E00", "p", "--"),
    "ERG + APG": ("#D55E00", "X", ":"),
    "ERG + CADS": ("#D55E00", "h", "-."),
    "ERG by flatness": ("#CC79A7", "8", "--"),
    "CFG + I-ERG of its own": ("#0072B2", ">", "--"),
}


def fronts(results: dict, folder: Path) -> None:
    """Consistency and quality against diversity, each method over its scales; nothing where no fronts were drawn."""
    prompted = {name: tables["prompted"] for name, tables in results["regimes"].items() if "prompted" in tables}
    regimes = {name: table for name, table in prompted.items() if table["fronts"]}
    if not regimes:
        return
    figure, panels = plt.subplots(2, len(regimes), figsize=(6.5 * len(regimes), 9), squeeze=False, layout="constrained")
    for column, (regime, table) in enumerate(regimes.items()):
        consistency = table["consistency"]
        for panel, measure, what in zip(panels[:, column], (consistency, "density"), ("consistency", "quality")):
            _front(panel, table, measure)
            _interval(panel, table, measure)
            panel.set(xlabel="coverage (diversity)", ylabel=f"{measure} ({what})")
            panel.set_title(TITLES[regime, "prompted"], loc="left")
        panels[0, column].legend(fontsize=9, framealpha=0.6)
    save(figure, "text-to-image-fronts", folder)


def _front(panel: Axes, table: dict, quality: str) -> None:
    (none,) = table["fronts"]["none"].values()
    panel.scatter(none["coverage"]["value"], none[quality]["value"], 90, "#999999", "p", label="no guidance", zorder=3)
    for name, (colour, mark, line) in STYLES.items():
        if name not in table["fronts"]:
            continue
        points = table["fronts"][name].values()
        x, y = ([point[measure]["value"] for point in points] for measure in ("coverage", quality))
        panel.plot(x, y, line, color=colour, marker=mark, markersize=7, label=name, linewidth=1.4)


def _interval(panel: Axes, table: dict, quality: str) -> None:
    """A cross beside the curves, as wide and high as 95 % of what a point is above no guidance, on average; nothing for tables
    without."""
    points = [point for name, front in table["fronts"].items() for point in front.values() if name != "none"]
    points = [point for point in points if "error above" in point[quality]]
    if not points:
        return
    wide, high = (HALF * mean(point[measure]["error above"] for point in points) for measure in ("coverage", quality))
    left, bottom = panel.get_xlim()[0], panel.get_ylim()[0]
    panel.errorbar(left + wide, bottom + high, high, wide, color="#777777", capsize=3, label="95 % of a difference")
