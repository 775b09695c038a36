"""Matplotlib without its global state: no window, no style and no backend that other nodes would notice."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch

# For letters that matplotlib's own font has not, in names of folders and classes: those of Windows, macOS and Linux.
FONTS = (
    "Microsoft YaHei", "Microsoft JhengHei", "Yu Gothic", "Malgun Gothic", "PingFang SC", "Hiragino Sans GB", "Hiragino Sans",
    "Arial Unicode MS", "Apple SD Gothic Neo", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans Arabic",
    "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Source Han Sans",
)  # fmt: skip


def check_matplotlib() -> None:
    """Raises ImportError where matplotlib is not there."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Pictures are drawn with the package matplotlib, which is not installed in ComfyUI's Python: run 'python -m pip "
            f"install matplotlib' there, and start ComfyUI again. ({error})"
        ) from error


def drawn(draw: Callable[..., Any], width: float, height: float, dpi: int) -> np.ndarray:
    """Pixels [H, W, 3], uint8, of what draw(figure) puts on a figure of a size in inches."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")}
    with matplotlib.rc_context(rc=style | {"font.size": 11, "font.family": ["DejaVu Sans", *_installed_fonts()]}):
        figure = Figure((width, height), dpi=dpi, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        draw(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def image_of(draw: Callable[..., Any], width: float, height: float, dpi: int) -> torch.Tensor:
    """The same as ComfyUI's IMAGE: [1, H, W, 3] in 0..1."""
    return torch.from_numpy(drawn(draw, width, height, dpi)).float()[None] / 255


@cache
def _installed_fonts() -> list[str]:
    from matplotlib.font_manager import fontManager

    installed = fontManager.get_font_names()
    return [name for name in FONTS if name in installed]
