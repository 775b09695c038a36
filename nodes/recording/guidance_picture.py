"""The record of a sampling as one picture that explains itself, to be read at the size of a node, too."""

import math
import textwrap
from collections.abc import Callable
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..classifiers.class_labels import told_apart
from ..drawing.figure import image_of
from .sampling_record import Curve, Map, SamplingRecord
from .small_picture import small_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, DPI = 6.0, 200  # inches, and so letters that can be read at a quarter of the size
IN_A_ROW = 4  # small pictures
LINE = 86  # characters of a note
WIDE = 20  # times the median: a range that a linear axis does not show
THIN = 16  # pictures of a batch at most that have a line of their own
# Okabe and Ito's.
COLOUR = {"size": "#0072B2", "angle": "#D55E00", "confidence": "#009E73", "gradient": "#CC79A7"}
OF_CLASSIFIERS = (COLOUR["confidence"], "#E69F00", "#56B4E9", "#000000")
COLOUR_MAP = "cividis"
HOW_TO_READ = (
    "Guidance is the guided prediction of the picture less the one of the positive prompt. Near 0° it makes more of what is "
    "there, which burns colours; near 90° it changes what the picture shows."
)
NO_GUIDANCE = (
    "none: in each step the guided prediction is that of the positive prompt (cfg is 1, both inputs have the same prompt, or no "
    "step is in a node's window)"
)
NO_PULL = "none in the predictions: the sampler itself moves the picture along the classifier's gradient"
ABOUT_ENTROPY = (
    "Attention entropy: 1 looks at everything alike, 0 at a single place. ERG with a temperature below 1 makes its branch "
    "yellower in the layers that it changes."
)


def guidance_picture(record: SamplingRecord, latent: torch.Tensor) -> torch.Tensor:
    """A picture [1, H, W, 3] in 0..1. latent: what the sampling drew, [B, C, ...]."""
    panels = [*_strip(record, latent), *_guidance(record), *_maps(record), *_classifier(record)]
    notes = [line for note in _notes(record, len(latent)) for line in textwrap.wrap(note, LINE)]
    heights = [height for height, _ in panels]

    def draw(figure: "Figure") -> None:
        rows = figure.subfigures(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
        for row, (_, panel) in zip(rows, panels):
            panel(row)
        figure.supxlabel("\n".join(notes), fontsize=9.5, x=0.02, ha="left")

    height = sum(heights) + 0.165 * (len(notes) + 1)
    return image_of(draw, WIDTH, height, DPI)


Panel = tuple[float, Callable[..., Any]]  # its height in inches, and what draws it on a figure


def _strip(record: SamplingRecord, latent: torch.Tensor) -> list[Panel]:
    """Small pictures: predictions along the way, and the result."""
    result = small_picture(record.latent_format.process_in(latent[:1].float()), record.latent_format)
    if result is None:
        return []
    shown = [(f"step {step + 1}", picture) for step, picture in record.predictions if step < record.steps - 1]
    shown.append(("result", result))
    rows = math.ceil(len(shown) / IN_A_ROW)
    height, width, _ = result.shape
    of_one = min(WIDTH / IN_A_ROW * height / width, 2.0)

    def draw(figure: "Figure") -> None:
        figure.suptitle("The picture as the model predicts it", fontweight="bold", fontsize=12)
        axes = figure.subplots(rows, min(IN_A_ROW, len(shown)), squeeze=False).ravel()
        for ax in axes:
            ax.set_axis_off()
        for ax, (title, picture) in zip(axes, shown):
            ax.imshow(picture.numpy(), interpolation="bicubic")
            ax.set_title(title, fontsize=11, pad=3)

    return [(0.3 + rows * (of_one + 0.1), draw)]


def _guidance(record: SamplingRecord) -> list[Panel]:
    if record.size is None or record.angle is None:
        return [_words("Guidance", "not seen: the guider has no positive prompt, or works in context windows")]
    if not record.size.values.any():
        return [_words("Guidance", NO_PULL if record.classifiers else NO_GUIDANCE)]
    angle, size = record.angle, Curve(record.size.steps, 100 * record.size.values)

    def draw_size(ax: "Axes") -> None:
        _curve(ax, size, COLOUR["size"], record.steps)
        means = size.values.mean(1)
        if means.all() and size.values.max() > WIDE * means.median():
            _logarithmic(ax)
        else:
            ax.set_ylim(bottom=0)
        ax.set_ylabel("% of prediction")

    def draw_angle(ax: "Axes") -> None:
        _curve(ax, angle, COLOUR["angle"], record.steps)
        ax.axhline(90, color="0.6", linestyle=":")
        ax.set(ylim=(0, 180), yticks=(0, 45, 90, 135, 180), ylabel="degrees")

    return [_plots({"Size of guidance": draw_size, "Angle to the prediction": draw_angle})]


def _classifier(record: SamplingRecord) -> list[Panel]:
    if not record.classifiers:
        return []
    several = len(record.classifiers) > 1
    names = told_apart([one.wanted for one in record.classifiers])  # two may lead to the same class

    def draw_confidence(ax: "Axes") -> None:
        for one, name, colour in zip(record.classifiers, names, cycle(OF_CLASSIFIERS)):
            sure = Curve(one.confidence.steps, 100 * one.confidence.values)
            _curve(ax, sure, colour, record.steps, marked=True, label=name)
        ax.set(ylim=(-3, 103), yticks=(0, 25, 50, 75, 100), ylabel="% sure")
        if several:
            ax.legend(fontsize=9)

    def draw_gradient(ax: "Axes") -> None:
        for one, colour in zip(record.classifiers, cycle(OF_CLASSIFIERS) if several else [COLOUR["gradient"]]):
            _curve(ax, one.gradient, colour, record.steps, marked=True)
        if any(one.gradient.values.any() for one in record.classifiers):
            _logarithmic(ax)

    return [_plots({"Classifier: its certainty": draw_confidence, "Size of its gradient": draw_gradient})]


def _plots(plots: dict[str, Callable[..., Any]]) -> Panel:
    """Two side by side, over the steps."""

    def draw(figure: "Figure") -> None:
        for ax, (title, plot) in zip(figure.subplots(1, len(plots)), plots.items()):
            ax.set_title(title, fontweight="bold", fontsize=12)
            plot(ax)
            ax.set_xlabel("step")
            ax.grid(alpha=0.3)

    return 2.1, draw


def _curve(ax: "Axes", curve: Curve, colour: str, steps: int, marked: bool = False, label: str | None = None) -> None:
    """The mean of a batch, and thin lines for each picture of it."""
    from matplotlib.ticker import MaxNLocator

    at, values, mean = [step + 1 for step in curve.steps], curve.values.numpy(), curve.values.nanmean(1)
    if 1 < values.shape[1] <= THIN:
        ax.plot(at, values, color=colour, linewidth=0.8, alpha=0.45)
    marker = "o" if marked or _has_lonely_points(mean) else None
    ax.plot(at, mean, color=colour, linewidth=2.6, marker=marker, markersize=4, label=label)
    ax.set_xlim(0.5, steps + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))


def _has_lonely_points(values: torch.Tensor) -> bool:
    """Whether any of the values [N] is drawn by no line: those beside it are not finite, or not there."""
    finite = torch.nn.functional.pad(values.isfinite(), (1, 1))
    return bool((finite[1:-1] & ~finite[:-2] & ~finite[2:]).any())


def _logarithmic(ax: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,), numticks=6))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _maps(record: SamplingRecord) -> list[Panel]:
    if not record.entropy:
        return [_words("Attention entropy", f"not measured: {record.why_no_entropy or 'no attention was seen'}")]
    maps = record.entropy
    found = torch.cat([of_branch.values.flatten() for of_branch in maps.values()])
    found = found[found.isfinite()]
    if not len(found):
        return [_words("Attention entropy", "not a finite number: the network's own numbers are broken")]
    lowest, highest = math.floor(10 * found.min()) / 10, math.ceil(10 * found.max()) / 10

    def draw(figure: "Figure") -> None:
        figure.suptitle("Attention entropy by layer", fontweight="bold", fontsize=12)
        axes = figure.subplots(1, len(maps), sharey=True, squeeze=False)[0]
        for ax, (name, of_branch) in zip(axes, maps.items()):
            image = _map(ax, name, of_branch, (lowest, max(highest, lowest + 0.1)), every=1 if len(maps) < 3 else 2)
        axes[0].set_ylabel("layer, first on top")
        figure.colorbar(image, ax=list(axes), pad=0.02)

    return [(2.9, draw)]


def _map(ax: "Axes", name: str, of_branch: Map, limits: tuple[float, float], every: int) -> Any:
    """every: so many columns have a number."""
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    colours = colormaps[COLOUR_MAP].with_extremes(bad="0.85")
    values = np.ma.masked_invalid(of_branch.values.numpy())
    image = ax.imshow(values, cmap=colours, clim=limits, aspect="auto", interpolation="nearest")
    ax.set_title(f"{name} branch", fontsize=11)
    ax.set_xticks(range(0, len(of_branch.steps), every), [str(step + 1) for step in of_branch.steps[::every]])
    ax.set_xlabel("step")
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    return image


def _words(title: str, words: str) -> Panel:
    """A panel that has nothing to draw says why."""

    def draw(figure: "Figure") -> None:
        figure.suptitle(title, fontweight="bold", fontsize=12)
        figure.text(0.5, 0.35, "\n".join(textwrap.wrap(words, 60)), ha="center", va="center")

    return 0.9, draw


def _notes(record: SamplingRecord, batch: int) -> list[str]:
    notes = [HOW_TO_READ] if record.size is not None and record.size.values.any() else []
    if record.entropy:
        notes.append(ABOUT_ENTROPY)
    if record.predictions:
        notes.append("Small pictures are rough, as ComfyUI's previews: shapes are right, colours may be off.")
    if batch > 1:
        each = ", thin ones: each" if batch <= THIN else ""
        notes.append(
            f"Thick curves: the mean of {batch} pictures{each}. Small pictures and attention: the first one's."
        )
    return notes
