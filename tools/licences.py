"""The licences of what the pack is run and developed with. `python -m tools.licences` writes docs/licences.md.

They are read from the metadata of the installed packages.
"""

import sys
from importlib.metadata import metadata

from packaging.requirements import Requirement

from .environment import REPOSITORY

PAGE = REPOSITORY / "docs" / "licences.md"
FROM_COMFYUI = ("numpy", "pillow", "safetensors", "torch", "torchvision", "tqdm", "transformers")
OPTIONAL = ("matplotlib", "relplot")
FOR_DEVELOPMENT = ("requirements.txt", "oldest-requirements.txt")
# Packages whose metadata does not say it; read in the file LICENSE of each.
BY_HAND = {"comfy-aimdo": "GPL-3.0", "relplot": "Apple's own, in its LICENSE"}
CLASSIFIER = "License :: OSI Approved :: "
TEXT = """# Licences

Written by `python -m tools.licences` from the metadata of the packages.

The pack, with the weights of its demo models, is under the MIT licence. What is installed from the registry holds none of the packages below. It runs in ComfyUI, which is under the GPL, version 3.

| what the nodes import | licence | |
|---|---|---|
{nodes}

| what the pack is developed and tested with | licence |
|---|---|
{development}
"""


def licence(package: str) -> str:
    """As the package's own metadata has it: an SPDX expression, else its classifiers, else one line."""
    said = metadata(package)
    classifiers = [line.removeprefix(CLASSIFIER) for line in said.get_all("Classifier", []) if CLASSIFIER in line]
    one_line = said.get("License", "") if "\n" not in said.get("License", "") else ""
    found = said.get("License-Expression") or ", ".join(classifiers) or one_line or BY_HAND.get(package)
    return found or sys.exit(
        f"{package} does not say its licence: read it, and add it to BY_HAND in tools/licences.py."
    )


def for_development() -> list[str]:
    """The packages that our files of requirements name."""
    lines = [line for name in FOR_DEVELOPMENT for line in (REPOSITORY / "tools" / name).read_text().splitlines()]
    names = {Requirement(line).name for line in lines if line and not line.startswith("#")}
    return sorted(names - {*FROM_COMFYUI, *OPTIONAL})


def main() -> None:
    nodes = [f"| {name} | {licence(name)} | with ComfyUI |" for name in FROM_COMFYUI]
    nodes += [f"| {name} | {licence(name)} | if you install it |" for name in OPTIONAL]
    development = [f"| {name} | {licence(name)} |" for name in for_development()]
    PAGE.write_text(TEXT.format(nodes="\n".join(nodes), development="\n".join(development)), encoding="utf-8")


if __name__ == "__main__":
    main()
