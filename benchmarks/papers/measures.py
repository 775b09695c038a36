"""How near drawn pictures are to real ones, by torch-fidelity: Fréchet distance, improved precision and recall.

As guided-diffusion's evaluation has them: the distance to statistics of the whole training set, precision and recall
(k = 3) among the pictures that come with these.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from demo.classes import world

from .kept import fingerprint

NEIGHBOURS = 3
TWIN_PICTURES = 10_000


@dataclass(frozen=True)
class Reference:
    """pictures uint8 [N, 3, H, W], and what tells them apart. statistics: mean [F] and covariance [F, F] of the features
    of what they stand for, or None where that is the pictures alone."""

    pictures: Tensor
    fingerprint: str
    statistics: dict[str, np.ndarray] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return tuple(self.pictures.shape[-2:])

    def draw(self, batch: int) -> Callable[[int, int], Tensor]:
        """From a batch's number and how many it has to its pictures."""
        return lambda number, count: self.pictures[number * batch : number * batch + count]


def published_reference(path: Path) -> Reference:
    """Of a file as guided-diffusion publishes them: arr_0, uint8 [N, H, W, 3], and mu and sigma. Raises ValueError."""
    try:
        with np.load(path) as file:  # which executes no pickle
            held = {key: file[key] for key in ("arr_0", "mu", "sigma") if key in file}
    except (OSError, ValueError, TypeError, AttributeError, EOFError, BadZipFile) as error:
        raise ValueError(f"reference: {path} cannot be read as an npz file: {error}") from error
    if held.keys() not in ({"arr_0"}, {"arr_0", "mu", "sigma"}):
        raise ValueError(
            f"reference: of arr_0 (pictures), mu and sigma (statistics), {path} holds {', '.join(held) or 'nothing'}. It "
            "must hold all three, as VIRTUAL_imagenet128_labeled.npz does, or pictures alone."
        )
    pictures = held.pop("arr_0")
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3 or len(pictures) <= NEIGHBOURS:
        raise ValueError(
            f"reference: arr_0 in {path} is {pictures.dtype} {[*pictures.shape]}. It must be uint8 [N, height, width, 3], "
            f"N more than {NEIGHBOURS}."
        )
    statistics = {key: value.astype(np.float64) for key, value in held.items()} or None
    return Reference(torch.from_numpy(pictures).movedim(-1, 1), fingerprint(path), statistics)


def drawn_reference() -> Reference:
    """Of the class-conditional demo world, the classes in turn."""
    labels = torch.arange(TWIN_PICTURES) % len(world.CLASSES)
    pictures = world.draw(labels, torch.Generator().manual_seed(0))
    return Reference(as_bytes(2 * pictures - 1), f"demo world, {TWIN_PICTURES}")


def as_bytes(pixels: Tensor) -> Tensor:
    """uint8 of pixels in -1..1, rounded down as guided-diffusion does."""
    return ((pixels + 1) * 127.5).clamp(0, 255).to(torch.uint8)


class Ruler:
    """Measures features [N, F] of drawn pictures. real: those of the reference's pictures."""

    def __init__(self, reference: Reference, real: Tensor):
        self._real = real
        self._statistics = reference.statistics or _statistics(real)
        count = real.shape[1]
        shapes = [value.shape for value in self._statistics.values()]
        if shapes != [(count,), (count, count)]:
            raise ValueError(
                f"reference: mu and sigma have the shapes {shapes}, and these pictures {count} features each."
            )

    def __call__(self, drawn: Tensor) -> dict[str, float]:
        distance = fid_statistics_to_metric(_statistics(drawn), self._statistics, verbose=False)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        balls = prc_features_to_metric(
            drawn.to(device), self._real.to(device), prc_neighborhood=NEIGHBOURS, save_cpu_ram=True, verbose=False
        )
        return {
            "FID": distance[KEY_METRIC_FID], "precision": balls[KEY_METRIC_PRECISION], "recall": balls[KEY_METRIC_RECALL]
        }  # fmt: skip


def _statistics(features: Tensor) -> dict[str, np.ndarray]:
    return fid_features_to_statistics(features.double())
