"""Rows of pictures under their names, as one picture for a page."""

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

LARGEST = 60_000  # bytes of a picture of the help pages; a test holds them to it
GAP = 4
TITLE = 34  # pixels; legible where a help panel shows the sheet at two thirds of its size


def sheet(rows: dict[str, Tensor]) -> Image.Image:
    """One picture of rows of pictures [N, H, W, 3] in 0..1, all of one size, each row under its name."""
    strips = {name: to_pil_image(_strip(pictures)) for name, pictures in rows.items()}
    width = max(strip.width for strip in strips.values())
    height = sum(TITLE + strip.height for strip in strips.values())
    page = Image.new("RGB", (width, height), "white")
    draw, font, y = ImageDraw.Draw(page), ImageFont.load_default(22), 0
    for name, strip in strips.items():
        draw.text((GAP, y + 5), name, "black", font)
        page.paste(strip, (0, y + TITLE))
        y += TITLE + strip.height
    return page


def _strip(pictures: Tensor) -> Tensor:
    planes = pictures.float().clamp(0, 1).movedim(-1, 1)
    return make_grid(planes, nrow=len(planes), padding=GAP, pad_value=1.0)


def enlarged(pictures: Tensor, times: int) -> Tensor:
    """Small pictures [N, H, W, 3] with each pixel as a square."""
    return pictures.repeat_interleave(times, 1).repeat_interleave(times, 2)
