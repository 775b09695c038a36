"""Reliability diagrams as a picture that explains itself: one column for each share of the sampling."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ...guidance_core.calibration_error import CalibrationError
from ..drawing.figure import image_of
from .guidance_view import FINISHED
from .image_folder import ExampleFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = 4.0  # inches of a diagram
DPI = 100
NAMED = 3  # pictures
LINE = 52  # characters of a note below a diagram
HOW_TO_READ = (
    "Across: how sure the classifier is of its answer. Up: how often such answers are right. On the dashed line it is only "
    "as sure as it is right; below it is over-confident. The curve is thick where many "
    "pictures lie (ticks: up to 100 of them, upwards if right); grey: 95 % confidence. ECE and smooth ECE: how far sure and "
    "right lie apart on average, 0 is best."
)


def reliability_picture(
    rows: Sequence[tuple[str, dict[float, CalibrationError]]], notes: Sequence[str] = ()
) -> torch.Tensor:
    """A picture [1, H, W, 3] in 0..1. rows: a name such as 'before', and what was measured at each percent. notes: lines
    at the bottom."""
    columns = len(rows[0][1])
    lines = [line for note in (HOW_TO_READ, *notes) for line in textwrap.wrap(note, LINE * columns)]

    def draw(figure: "Figure") -> None:
        axes = figure.subplots(len(rows), columns, squeeze=False)
        for axes_of_row, (name, measured) in zip(axes, rows):
            for ax, (percent, error) in zip(axes_of_row, measured.items()):
                _diagram(figure, ax, f"{name}: {_stage(percent)}" if name else _stage(percent), error)
        figure.supxlabel("\n".join(lines), fontsize=10, x=0.01, ha="left", parse_math=False)  # names may hold $

    height = len(rows) * (SIDE + 0.7) + 0.2 * (len(lines) + 1)
    return image_of(draw, columns * SIDE, height, DPI)


def _diagram(figure: "Figure", ax: "Axes", title: str, error: CalibrationError) -> None:
    import relplot

    curve = {key: value for key, value in error.curve.items() if key != "ce"}  # it stands in the title
    relplot.plot_rel_diagram(curve, fig=figure, ax=ax, use_default_style=False, plot_labels=False)
    ax.set_title(
        f"{title}\nright {error.accuracy:.0%}, sure {error.confidence:.0%}, ECE {error.ece:.3f}\n"
        f"smooth ECE {error.smooth_ece:.3f} ± {error.interval:.3f}", fontsize=11, pad=14,
    )  # fmt: skip
    ax.set_xlabel("sure")
    ax.set_ylabel("right")
    ax.text(0.95, 0.06, "over-confident", ha="right", color="0.6")
    ax.text(0.05, 0.91, "under-confident", color="0.6")


def _stage(percent: float) -> str:
    return "finished pictures" if percent == FINISHED else f"{percent:.0%} of the sampling"


def skipped_note(folder: ExampleFolder) -> list[str]:
    """A line that says which pictures of a folder were left out, where there are any."""
    if not folder.skipped:
        return []
    more = f" and {len(folder.skipped) - NAMED} more, which the log names" if len(folder.skipped) > NAMED else ""
    return [f"Skipped: {'; '.join(folder.skipped[:NAMED])}{more}."]
