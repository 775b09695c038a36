"""The files below a folder of class folders, each once: links may lead to a file by many ways, and in circles."""

import os
from contextlib import suppress
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path
from stat import S_ISDIR


@dataclass(frozen=True)
class FilesBelow:
    """files: by relative path, the class folder first, with what the file system says of each. again: how many ways to a
    file or folder were left out, because another one was taken."""

    files: dict[Path, os.stat_result]
    again: int


def files_below(root: Path) -> FilesBelow:
    """All files in sub-folders but for hidden ones, in the order of torchvision's ImageFolder.

    A file to which several ways lead, by links or hard links, is listed in its own place. If that is not below the root, or
    it has several, the shortest way counts, and of those the first by name.
    """
    found: dict[Path, os.stat_result] = {}
    seen: set[tuple[int, int] | str] = set()
    again = 0
    waiting = [(False, 0, str(root))]  # whether links lead there, how deep it is, and where: the first way is taken
    while waiting:
        linked, depth, place = heappop(waiting)
        status = _status(place)
        if status is None:
            continue
        if (identity := _identity(place, status)) in seen:
            again += 1
            continue
        seen.add(identity)
        if not S_ISDIR(status.st_mode):
            found[Path(place).relative_to(root)] = status
            continue
        for child in _children(place):
            # Files beside the class folders have no class. DirEntry.is_dir raises for a link that leads to itself.
            if depth or os.path.isdir(child.path):
                heappush(waiting, (linked or child.is_symlink(), depth + 1, child.path))
    return FilesBelow({file: found[file] for file in sorted(found, key=_order)}, again)


def _status(place: str) -> os.stat_result | None:
    """Of what a link leads to, or of the link itself where that is nothing; None for what has been deleted meanwhile."""
    for look in (os.stat, os.lstat):
        with suppress(OSError):
            return look(place)
    return None


def _identity(place: str, status: os.stat_result) -> tuple[int, int] | str:
    """The same for all ways to a file. Some network drives number no files."""
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(place)


def _children(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder, but for hidden names. A folder that may not be read has nothing, as for ImageFolder."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return []


def _order(file: Path) -> tuple[str, str, str]:
    return file.parts[0], str(file.parent), file.name
