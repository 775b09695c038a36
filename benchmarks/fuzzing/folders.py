"""Folders of ComfyUI for fuzzing alone, so that nothing is read or written elsewhere."""

from pathlib import Path

import folder_paths  # ComfyUI's
from PIL import Image

from demo.scenes import COLOURS

PICTURES = 5  # of each class


def use_folders(root: Path) -> None:
    """Input, output and temporary files below `root`; a few pictures in the place of the demo's 600, which take seconds."""
    for name in ("input", "output", "temp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    folder_paths.set_input_directory(str(root / "input"))
    folder_paths.set_output_directory(str(root / "output"))
    folder_paths.set_temp_directory(str(root / "temp"))
    for folder in (root / "temp" / "entropy-guidance-demo-pictures", root / "input" / "few"):
        _draw(folder)


def _draw(folder: Path) -> None:
    for number, colour in enumerate(COLOURS):
        (folder / colour).mkdir(parents=True, exist_ok=True)
        for picture in range(PICTURES):
            Image.new("RGB", (32, 32), (number * 40, picture * 50, 100)).save(folder / colour / f"{picture}.png")
