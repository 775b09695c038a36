"""Features of pictures that are drawn in batches and kept, a file a batch, so that an interrupted run goes on."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.utils import save_image
from tqdm import tqdm

from .ranks import Ranks

GRID = 64  # pictures that are kept to look at


@dataclass(frozen=True)
class Batches:
    """Pictures 0 to count in batches of `size`; batch i has those from i · size on, whoever draws it.

    draw: from a batch's number and how many it has, which is `size` but for the last, to pictures uint8 [B, 3, H, W].
    folder: where what was seen of them is kept; a larger count goes on there.
    """

    count: int
    size: int
    draw: Callable[[int, int], Tensor]
    folder: Path

    def __len__(self) -> int:
        return -(-self.count // self.size)

    def features(self, eyes: Callable[[Tensor], Tensor], ranks: Ranks) -> Tensor | None:
        """[count, F] by eyes, which see a batch; None but for the first process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        own = tqdm(ranks.own(len(self)), desc=self.folder.name, disable=ranks.rank > 0, unit="batch")
        found = ranks.gather([self._seen(i, eyes) for i in own], len(self))
        return None if found is None else torch.cat(found)

    def _seen(self, i: int, eyes: Callable[[Tensor], Tensor]) -> Tensor:
        start, end = i * self.size, min((i + 1) * self.size, self.count)
        path = self.folder / f"{start:06}-{end:06}.safetensors"
        if not path.exists():
            pictures = self.draw(i, end - start)
            if i == 0:
                save_image(pictures[:GRID] / 255, self.folder / "first.png")
            unfinished = path.with_suffix(".part")
            save_file({"features": eyes(pictures).float().cpu().contiguous()}, unfinished)
            unfinished.replace(path)
        return load_file(path)["features"]


def key_of(settings: dict) -> str:
    """A name for a folder of what these settings, and no others, draw."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def fingerprint(path: Path) -> str:
    """Of a file's contents, or of those of all files of a folder."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(file.name.encode())
            with file.open("rb") as opened:
                while block := opened.read(1 << 24):
                    digest.update(block)
    return digest.hexdigest()
