"""Whether the pack fits a ComfyUI: holds the contract (docs/comfyui-contract.md) against it, without sampling. `make doctor`."""

import sys

from contract.check import Contract, Finding, findings

from .contract import derive, menu
from .environment import COMFYUI


def main() -> None:
    sys.path.insert(0, str(COMFYUI))  # before anything of this repository that has a name of ComfyUI's
    contract = derive()
    version, found = examine(contract)
    absent = [finding.row.name.rpartition(".")[2] for finding in found if not finding.here]
    moved = [finding for finding in found if finding.here]
    print(f"ComfyUI {version} in {COMFYUI}: {len(contract.rows) - len(found)} of {len(contract.rows)} places hold.")
    if absent:
        print(f"Not in this ComfyUI, and not needed: {', '.join(absent)}.")
    names = {file: name for name, file in menu().items()}
    for finding in moved:
        print(contract.effect(finding, names))
    sys.exit(f"Moved: {', '.join(str(finding.row) for finding in moved)}" if moved else 0)


def examine(contract: Contract) -> tuple[str, list[Finding]]:
    """The version of ComfyUI, and what was found in it."""
    import torch
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()
    from comfyui_version import __version__

    return __version__, list(findings(contract.rows))


if __name__ == "__main__":
    main()
