"""Results of the benchmarks, a JSON file each in docs/results. `python -m benchmarks.numbers` fills the pages from them.

First `command`, `date`, `commit` and `versions`, then the settings, then `rows`. A measure is a number, or its `value` beside what is
known of its certainty: `low` and `high`, the ends of an interval, a `deviation`, or a standard `error`, then with how far it is
`above` a baseline and the `error above` of that. Results of --quick go to
`.dev/benchmarks/quick`, where nothing reads them.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch
from comfyui_version import __version__ as comfyui_version

from tools.environment import DEV, REPOSITORY

from . import in_process
from .commit import commit

DOCS, QUICK = REPOSITORY / "docs", DEV / "benchmarks" / "quick"
PACKAGES = ("optuna", "scikit-learn", "scipy", "torch", "torchmetrics")


def write(name: str, found: dict, quick: bool = False) -> None:
    """Results of the running command, `python -m benchmarks.{name}`, in the place of those that are there."""
    results = {**origin(name), **found}
    path = (QUICK if quick else DOCS / "results") / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def origin(name: str) -> dict:
    """Where results of the running command come from: itself, today, the commit of this repository and the versions."""
    versions = {"ComfyUI": comfyui_version, **{package: version(package) for package in PACKAGES}}
    command = shlex.join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]])
    return {"command": command, "date": date.today().isoformat(), "commit": commit(), "versions": versions}


def read(name: str) -> dict:
    """Raises FileNotFoundError, with the command that writes them, for results that are not there."""
    path = DOCS / "results" / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(f"docs/results/{name}.json is not there: `python -m benchmarks.{name}` writes it.")
    return json.loads(path.read_text(encoding="utf-8"))


def folder(quick: bool = False) -> Path:
    """Of the pictures that belong to results."""
    return QUICK if quick else DOCS


def picture(name: str, quick: bool = False) -> Path:
    return folder(quick) / f"{name}.png"


def main(
    name: str, description: str, measure: Callable[[bool], dict], draw: Callable[[dict, Path], None] | None = None
) -> None:
    """The command of a benchmark whose only option is --quick, which `measure` is told. draw: its figure, from what was
    measured, into a folder."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little of everything, kept out of the repository")
    quick = parser.parse_args().quick
    in_process.load_nodes()
    with torch.inference_mode():
        found = measure(quick)
    write(name, found, quick)
    if draw is not None:
        draw(found, folder(quick))
