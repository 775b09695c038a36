"""Older versions of packages, in front of those that `make setup` installs, which serve for the rest."""

import os
import shutil
import sys
from pathlib import Path

from .environment import DEV
from .setup import PIP, run


def path_with(requirements: Path) -> str:
    """PYTHONPATH with the packages of a file of requirements before all others. They are installed once into a folder of
    their own in .dev, without what they ask for."""
    folder = DEV / "older-packages" / requirements.stem
    done = folder / "done.txt"  # written last
    wanted = f"{requirements.read_text()}{sys.version}\n"
    if not done.exists() or done.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        run("Installing packages of its time", sys.executable, *PIP, "install", "--no-deps", "--target", folder,
            "-r", requirements)  # fmt: skip
        done.write_text(wanted)
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
