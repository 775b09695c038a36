"""Example pictures for the demo classifier, in the layout of any folder for calibration: a sub-folder for each class."""

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import folder_paths
from torchvision.transforms.functional import to_pil_image

from .scenes import COLOURS, clear_scenes, render

COUNT = 600


def example_folder() -> Path:
    """The folder, drawn at its first use into ComfyUI's folder for temporary files."""
    root = Path(folder_paths.get_temp_directory())
    folder = root / "entropy-guidance-demo-pictures"
    if not folder.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=root) as unfinished:
            drawn = Path(unfinished, folder.name)
            drawn.mkdir()
            _draw(drawn)
            try:
                drawn.replace(folder)
            except OSError:  # not where another ComfyUI with this folder for temporary files has drawn it meanwhile
                if not folder.is_dir():
                    raise
    return folder


def _draw(folder: Path) -> None:
    for colour in COLOURS:
        (folder / colour).mkdir()
    for number, scene in enumerate(clear_scenes(Random("example folder"), COUNT)):
        to_pil_image(render(scene)).save(folder / scene.largest.colour / f"{number:04}.png")
