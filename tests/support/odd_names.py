"""Names whose bytes are no text, which not every file system has."""

import os
from pathlib import Path

import pytest


def need_odd_names(folder: Path) -> None:
    """Skips a test where a file in this folder cannot have such a name."""
    path = folder / os.fsdecode(b"\xff")
    try:
        path.touch()
    except OSError as error:
        pytest.skip(f"this file system has no such names: {error}")
    path.unlink()
