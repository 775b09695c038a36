"""The classifiers below a folder: folders with a config.json, and files of weights, as ComfyUI lists its models.

Linked folders are followed, endings are in small letters or capitals, and a list is kept until one of its folders changes:
ComfyUI asks for it at each prompt.
"""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from .weights import WEIGHT_FILES

CONFIG = "config.json"
LEFT_OUT = ".git"  # as in ComfyUI
UNFINISHED = ".unfinished-"  # how names of folders begin in which a classifier is being saved
Folder = tuple[str, frozenset[tuple[int, int]]]  # its name below the root, and which folders it is in
COARSEST = 2 * 10**9  # ns: file systems tell a folder's time in steps of up to two seconds
UNKNOWN = -1  # in the place of the time of a folder that has to be looked into again


@dataclass
class _Listing:
    """What was found below a root at a time in ns. times: of the last change of each folder on the way, in ns."""

    root: str
    at: int = field(default_factory=time.time_ns)
    names: list[str] = field(default_factory=list)
    times: dict[str, int] = field(default_factory=dict)

    def is_current(self) -> bool:
        """Whether no folder has changed, or can have within one step of its time."""
        return all(_changed(folder) == then < self.at - COARSEST for folder, then in self.times.items())

    def look_into(self, name: str, around: frozenset[tuple[int, int]]) -> list[Folder]:
        """Adds what is in a folder, and returns the folders in it."""
        folder = os.path.join(self.root, name)
        try:
            status = os.stat(folder)
            with os.scandir(folder) as scanned:
                entries = list(scanned)
        except OSError:  # gone meanwhile, or not ours to read: ComfyUI leaves it out, too
            self.times[folder] = UNKNOWN
            return []
        this = (status.st_dev, status.st_ino)
        if this in around:  # by a link
            return []
        self.times[folder] = status.st_mtime_ns
        if name and any(entry.name == CONFIG and _is_file(entry) for entry in entries):
            self.names.append(name)
            return []
        folders = []
        for entry in entries:
            inner = f"{name}/{entry.name}" if name else entry.name
            if _is_folder(entry):
                folders += [] if _is_left_out(entry.name) else [(inner, around | {this})]
            elif not _is_file(entry) and entry.is_symlink():  # may lead somewhere later, without a change here
                self.times[folder] = UNKNOWN
            elif _has_weights(entry.name) and _is_file(entry):
                self.names.append(inner)
        return folders


_kept: dict[str, _Listing] = {}


def names_below(root: str) -> list[str]:
    """Paths below a folder, with forward slashes. Nothing in a folder with a config.json is listed but that folder."""
    if root not in _kept or not _kept[root].is_current():
        listing = _Listing(root)
        left: list[Folder] = [("", frozenset())]
        while left:
            left.extend(listing.look_into(*left.pop()))
        _kept[root] = listing
    return _kept[root].names


def path_below(root: str, name: str) -> Path | None:
    """Where one of `names_below` is, without listing all; None where nothing of that name is."""
    parts = name.split("/")
    if any(part in ("", "..") or _is_left_out(part) or Path(part).name != part for part in parts):
        return None
    path = Path(root, *parts)
    if any(_is_model(Path(root, *parts[:inner])) for inner in range(1, len(parts))):
        return None
    return path if _is_model(path) or is_weight_file(path) else None


def _is_left_out(name: str) -> bool:
    return name == LEFT_OUT or name.startswith(UNFINISHED)


def is_weight_file(path: Path) -> bool:
    """Whether a file can hold weights: nothing that is no regular file, which might not end."""
    return _has_weights(path.name) and os.path.isfile(path)


def _is_model(folder: Path) -> bool:
    return os.path.isfile(folder / CONFIG)


def _has_weights(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in WEIGHT_FILES


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Asks the disk for links alone; DirEntry's own answer to one that leads to itself is an error."""
    return os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _changed(folder: str) -> int | None:
    """When a folder last changed, in ns; None where it cannot be seen."""
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return None
