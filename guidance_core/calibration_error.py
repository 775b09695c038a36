"""How far a classifier's confidence is from its accuracy: accuracy, ECE, smooth ECE and its reliability curve.

Smooth ECE and the curve are those of relplot, https://arxiv.org/abs/2309.12236, which is asked for when it is needed:
`pip install relplot`.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

BINS = 15


@dataclass(frozen=True)
class CalibrationError:
    """Of n answers. accuracy, confidence (mean top probability), ece (15 bins), smooth_ece: 0 to 1.

    interval: half the width of smooth ECE's 95 % confidence interval. curve: relplot's, for its diagram.
    """

    n: int
    accuracy: float
    confidence: float
    ece: float
    smooth_ece: float
    interval: float
    curve: dict[str, Any]


def check_relplot() -> None:
    """Raises ImportError where relplot is not there."""
    try:
        import relplot  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Calibration is measured with the package relplot, which is not installed in ComfyUI's Python: run "
            f"'python -m pip install relplot' there, and start ComfyUI again. ({error})"
        ) from error


def calibration_error(logits: Tensor, labels: Tensor) -> CalibrationError:
    """Of logits [n, N] and class numbers [n], n ≥ 2. The same answers give the same numbers. Raises ValueError for
    fewer, and for logits that are not finite."""
    if len(labels) < 2:
        raise ValueError(f"calibration is measured on two pictures or more, not on {len(labels)}.")
    if not logits.isfinite().all():
        raise ValueError("the classifier's logits are not finite numbers.")
    import relplot
    from relplot.metrics import binnedECE

    confidence, answer = logits.cpu().double().softmax(-1).max(-1)  # some GPUs have no float64
    sure, right = confidence.numpy().clip(0, 1), (answer == labels.cpu()).numpy().astype(float)
    with _same_random_numbers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries below it, about each other's interfaces
        curve = relplot.prepare_rel_diagram(sure, right)
    ece = binnedECE(sure, right, BINS)
    return CalibrationError(
        len(right), right.mean().item(), sure.mean().item(), float(ece), float(curve["ce"]),
        float(curve["ce_ci_width"]), curve,
    )  # fmt: skip


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Resampling draws from numpy's global generator, whose state is put back."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)
