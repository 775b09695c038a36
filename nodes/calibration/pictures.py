"""Picture files that a classifier learns from: squares of one size, read one by one, and what is wrong with a file."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageOps

from ..common.printable import printable

LARGEST = 89_478_485  # pixels; Pillow warns of decompression bombs from here on
LARGEST_FILE = 2**29  # bytes; an uncompressed picture of so many pixels has half of that
MOST_PASSES = 200  # of a JPEG in parts, each of which goes over all its pixels; usual are 10
# What stands behind bytes of 255 in a JPEG: the beginning of a pass, the picture's end, and what has no length of its own.
PASS, END, BARE = 0xDA, 0xD9, {0x00, 0x01, *range(0xD0, 0xD9)}
NO_FILLING = re.compile(rb"[^\xff]")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")  # of Pillow's, some of which start other programs


@dataclass(frozen=True)
class Pictures:
    """Items are pictures [3, S, S] in 0..1 and their class numbers, read when they are asked for."""

    files: tuple[Path, ...]
    labels: tuple[int, ...]
    size: int

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return read_picture(self.files[index], self.size), self.labels[index]


def read_picture(path: Path, size: int) -> torch.Tensor:
    """A picture [3, size, size] in 0..1, its middle square."""
    from torchvision.transforms.v2 import functional as transforms

    with Image.open(path, formats=FORMATS) as file:
        picture = ImageOps.exif_transpose(file)
        square = transforms.center_crop(picture, min(picture.size))
        return transforms.pil_to_tensor(transforms.resize(square, [size, size], antialias=True)).float() / 255


def problem_of(path: Path) -> str:
    """Why a picture cannot be used, or nothing."""
    if not os.path.isfile(path):
        return "no regular file but a pipe, device, socket or link to nothing"
    if path.stat().st_size > LARGEST_FILE:
        return f"huge ({path.stat().st_size:,} bytes); at most {LARGEST_FILE:,}"
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > LARGEST:
                return f"huge ({picture.width} × {picture.height}); at most {LARGEST:,} pixels"
            if picture.mode != "RGB":
                return f"not RGB but {picture.mode}; save it as an RGB picture"
            if picture.format in ("JPEG", "MPO") and _passes(path.read_bytes()) > MOST_PASSES:
                return f"in more than {MOST_PASSES} passes, as a progressive JPEG; save it anew"
            ImageOps.exif_transpose(picture).load()
    except Image.DecompressionBombError:
        return f"huge; at most {LARGEST:,} pixels"
    except Exception as error:  # Pillow's readers let damaged files raise anything
        return f"unreadable ({printable(str(error))})"
    return ""


def _passes(jpeg: bytes) -> int:
    """How often a JPEG goes over its pixels, as far as that is allowed. What stands behind its end, such as a phone's video, is not counted."""
    passes, at = 0, jpeg.find(b"\xff", 2)
    while at >= 0 and (marker := NO_FILLING.search(jpeg, at)) and marker[0][0] != END and passes <= MOST_PASSES:
        kind, behind = marker[0][0], marker.end()
        passes += kind == PASS
        at = jpeg.find(b"\xff", behind if kind in BARE else behind + int.from_bytes(jpeg[behind : behind + 2], "big"))
    return passes
