"""Folders of example pictures for a classifier: one sub-folder a class, below ComfyUI's input folder.

A picture that cannot be used is skipped and named; what is left is split into pictures to train on and held-out ones,
always the same for the same file names. A file has one class, whatever links lead to it.
"""

import logging
import math
import os
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import folder_paths

from ...guidance_core.class_labels import parse_labels
from ...guidance_core.number_range import whole_number
from ..classifiers.guidance_classifier import GuidanceClassifier
from ..common.printable import printable
from ..common.progress import Progress
from .files_below import FilesBelow, files_below
from .pictures import Pictures, problem_of

DEMO = "entropy-guidance-demo"
HELD_OUT = 0.2  # of each class
MOST_HELD_OUT = 500  # pictures of all classes, or one of each
SHOWN = 20  # names in a message
LARGEST_SIZE = 8192  # pixels: beyond it one picture takes gigabytes


@dataclass(frozen=True)
class ExampleFolder:
    """skipped: what was left out and why, a line a picture."""

    name: str
    training: Pictures
    held_out: Pictures
    skipped: tuple[str, ...]

    @property
    def everything(self) -> Pictures:
        first, second = self.training, self.held_out
        return Pictures(first.files + second.files, first.labels + second.labels, first.size)


def folder_names() -> list[str]:
    """What the nodes offer: folders below ComfyUI's input folder that have sub-folders. Links are looked into, once, and not
    what is below them: they may lead in circles."""
    root = folder_paths.get_input_directory()
    found: set[str] = set()
    for place, folders, _ in os.walk(root):
        links = (os.path.join(place, name) for name in folders if os.path.islink(os.path.join(place, name)))
        with_folders = [*[place] * bool(folders), *filter(_has_folders, links)]
        found.update(Path(folder).relative_to(root).as_posix() for folder in with_folders)
    return [DEMO, *sorted(found - {".", DEMO})]


def _has_folders(place: str) -> bool:
    """False for a place that cannot be looked into."""
    return any(folders for _, folders, _ in islice(os.walk(place), 1))


def fingerprint(name: str | None) -> str | float:
    """Changes with what a folder holds; NaN, which is never the same, for one that another node chooses."""
    if name is None:
        return float("nan")
    if name == DEMO or name not in folder_names():
        return name
    digest = sha256()
    for file, status in files_below(_path(name)).files.items():
        digest.update(os.fsencode(file) + f" {status.st_mtime_ns} {status.st_size}\n".encode())
    return digest.hexdigest()


def open_folder(name: str, classifier: GuidanceClassifier, size: int) -> ExampleFolder:
    """Looks at every picture of a folder. size: S of the pictures.

    Raises ValueError for a folder without usable pictures of two classes or more, with sub-folders that are no classes
    of the classifier, or that is not below ComfyUI's input folder.
    """
    size = whole_number("resolution", size, lowest=1, highest=LARGEST_SIZE)
    listing = _listing(name)
    files = list(listing.files)
    classes = _classes(name, sorted({file.parts[0] for file in files}), classifier)
    root, usable, skipped, progress = _path(name), [], [], Progress(len(files))
    for file in files:
        problem = problem_of(root / file)
        if problem:
            skipped.append(f"{printable(file.as_posix())}: {problem}")
        else:
            usable.append(file)
        progress()
    _warn_of_links(name, listing.again)
    _warn(name, skipped, len(files))
    _check_variety(name, {classes[file.parts[0]] for file in usable}, skipped, classifier)
    held_out = _held_out(usable)

    def pictures(files: Any) -> Any:
        return Pictures(tuple(root / file for file in files), tuple(classes[file.parts[0]] for file in files), size)

    return ExampleFolder(name, pictures([f for f in usable if f not in held_out]), pictures(held_out), tuple(skipped))


def _path(name: str) -> Path:
    if name == DEMO:
        from ...demo.example_folder import example_folder

        return example_folder()
    return Path(folder_paths.get_input_directory()) / name


def _listing(name: str) -> FilesBelow:
    """What is there, pictures or not."""
    if name not in folder_names():
        raise ValueError(
            f"image_folder = {name!r}: there is no such folder with sub-folders in ComfyUI's input folder "
            f"{printable(folder_paths.get_input_directory())}."
        )
    listing = files_below(_path(name))
    if not listing.files:
        raise ValueError(
            f"image_folder = '{printable(name)}': its sub-folders hold no pictures. Give it one sub-folder for each class, named "
            "after the class, with pictures of it (png, jpg, webp, bmp, tif)."
        )
    return listing


def _classes(name: str, folders: list[str], classifier: GuidanceClassifier) -> dict[str, int]:
    """Class numbers of sub-folders."""
    numbers, unknown = {}, []
    for folder in folders:
        try:
            (numbers[folder],) = parse_labels(folder, classifier.labels)
        except ValueError:
            unknown.append(folder)
    if unknown:
        known = ", ".join(f"'{label}'" for label in classifier.labels[:SHOWN])
        message = (
            f"image_folder = '{name}': {len(unknown)} of {len(folders)} sub-folders are no classes of the classifier "
            f"'{classifier.name}': {', '.join(unknown[:SHOWN])}. Name each after one of its classes or a class's "
            f"number: {known}{' and so on' if len(classifier.labels) > SHOWN else ''}."
        )
        raise ValueError(printable(message))
    return numbers


def _warn_of_links(name: str, again: int) -> None:
    if again:
        logging.warning(
            "image_folder '%s': %d links or hard links to files and folders that are listed in another place were left out, "
            "so that no picture is of two classes, or both trained on and held out.", printable(name), again,
        )  # fmt: skip


def _warn(name: str, skipped: list[str], count: int) -> None:
    if skipped:
        more = f"\n... and {len(skipped) - SHOWN} more" if len(skipped) > SHOWN else ""
        logging.warning(
            "image_folder '%s': %d of %d pictures were skipped:\n%s%s",
            printable(name), len(skipped), count, "\n".join(skipped[:SHOWN]), more,
        )  # fmt: skip


def _check_variety(name: str, classes: set[int], skipped: list[str], classifier: GuidanceClassifier) -> None:
    if not classes:
        raise ValueError(
            f"image_folder = '{printable(name)}': none of its {len(skipped)} pictures can be used:\n"
            + "\n".join(skipped[:SHOWN])
        )
    if len(classes) == 1:
        (only,) = classes
        raise ValueError(
            f"image_folder = '{printable(name)}': all its usable pictures are of one class, "
            f"'{printable(classifier.labels[only])}'. "
            "Calibration needs two classes or more, each in a sub-folder."
        )


def _held_out(files: list[Path]) -> dict[Path, None]:
    """In order: a fifth of each class, one at least where it has two, chosen by the names alone."""
    by_class: dict[str, list[Path]] = {}
    for file in sorted(files, key=lambda file: sha256(os.fsencode(file.as_posix())).digest()):
        by_class.setdefault(file.parts[0], []).append(file)
    most = max(MOST_HELD_OUT // len(by_class), 1)
    return {
        file: None
        for group in by_class.values()
        for file in group[: min(math.ceil(HELD_OUT * len(group)), most, len(group) - 1)]
    }
