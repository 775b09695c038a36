"""Draws icon and banner of the pack in the registry: one attention's distribution at temperatures from flat to sharp.

ERG guides away from what the model draws with the flat one. The curves are softmaxes of the same scores, as the nodes take them.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from .environment import REPOSITORY

FOLDER = REPOSITORY / "docs" / "registry"
ICON, BANNER = (400, 400), (1260, 540)  # pixels; the registry asks for at most 400 x 400, and for 21:9
NIGHT, LIGHT = "#14161c", "#f4f1ea"
FLAT_TO_SHARP = colormaps["plasma"]
KEYS = np.linspace(-1, 1, 600)
SCORES = 5 * np.exp(-8 * KEYS**2) + 1.6 * np.exp(-60 * (KEYS - 0.55) ** 2)  # one key matters, another a little


def attention(temperature: float) -> np.ndarray:
    """The softmax of temperature times the scores, as the pack counts it: 0 is flat, 1 the attention itself."""
    weights = np.exp(temperature * SCORES)
    return weights / weights.sum()


def draw_icon(panel: Axes) -> None:
    top = attention(1).max()
    for temperature, colour in ((1, FLAT_TO_SHARP(0.82)), (0.25, FLAT_TO_SHARP(0.4))):
        panel.fill_between(KEYS, -1, attention(temperature) / top, color=colour, linewidth=0)
        panel.plot(KEYS, attention(temperature) / top, color=LIGHT, linewidth=9)
    panel.set(xlim=(-0.42, 0.42), ylim=(-0.12, 1.12))


def draw_banner(panel: Axes) -> None:
    temperatures = np.linspace(0, 1, 14)
    top = attention(1).max()
    for row, temperature in enumerate(temperatures):
        base, order = 0.055 * (len(temperatures) - row), 2 * row
        curve = base + 0.5 * attention(temperature) / top
        x = KEYS + 1.0
        panel.fill_between(x, base, curve, color=NIGHT, zorder=order, linewidth=0)
        panel.plot(x, curve, color=FLAT_TO_SHARP(0.25 + 0.6 * temperature), linewidth=2.5, zorder=order + 1)
    words = (("Entropy Guidance", 0.48, 38, "bold"), ("ERG and any image classifier, for ComfyUI", 0.33, 18, "normal"))
    for text, height, size, weight in words:
        panel.text(-2.35, height, text, color=LIGHT, fontsize=size, fontweight=weight)
    panel.set(xlim=(-2.55, 2.15), ylim=(-0.08, 0.98))


def write(draw: Callable[[Axes], None], size: tuple[int, int], path: Path) -> None:
    """Few colours make a small file."""
    figure = Figure((size[0] / 100, size[1] / 100), dpi=100, facecolor=NIGHT)
    canvas = FigureCanvasAgg(figure)
    panel = figure.add_axes((0, 0, 1, 1))
    panel.set_axis_off()
    draw(panel)
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(64).save(path, optimize=True)


def main() -> None:
    write(draw_icon, ICON, FOLDER / "icon.png")
    write(draw_banner, BANNER, FOLDER / "banner.png")


if __name__ == "__main__":
    main()
