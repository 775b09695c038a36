"""How the benchmarks' figures look: Okabe and Ito's colours, a mark of its own for each line, PNG and SVG."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

LINES = (
    ("#0072B2", "o"), ("#E69F00", "s"), ("#CC79A7", "^"), ("#009E73", "D"), ("#D55E00", "v"), ("#56B4E9", "P"), ("#000000", "X"),
)  # fmt: skip
plt.rcParams.update({"font.size": 11, "svg.fonttype": "none", "svg.hashsalt": "entropy guidance"})


def save(figure: Figure, name: str, folder: Path) -> None:
    for kind in ("png", "svg"):
        # No date in the file: the same results give the same bytes.
        figure.savefig(folder / f"{name}.{kind}", dpi=110, metadata={"Date": None} if kind == "svg" else None)
    plt.close(figure)
