"""Runs the test suite with the Python of ComfyUI. Options go to pytest: `make test ARGS="tests/nodes -k compiled -n 0"`."""

import importlib.util
import os
import sys

from .environment import REPOSITORY

PACKAGES = {
    "comfy_cli": "comfy-cli", "hypothesis": "hypothesis", "jinja2": "jinja2", "markdown_it": "markdown-it-py", "optuna": "optuna", "playwright": "playwright", "pytest": "pytest", "relplot": "relplot",
    "requests": "requests", "scipy": "scipy", "torch_fidelity": "torch-fidelity", "torchmetrics": "torchmetrics",
    "xdist": "pytest-xdist", "pytest_randomly": "pytest-randomly",
}  # fmt: skip


def main() -> None:
    missing = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        sys.exit(
            f"The tests need what COMFYUI_PYTHON does not have: {sys.executable} -m pip install {' '.join(missing)}"
        )
    # One thread for each worker: processes of several threads slow each other down, four to ten times on two cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import pytest

    # Named from the repository on, modules of tests hide neither ComfyUI's `nodes` nor the pack's own folders.
    options = [f"--rootdir={REPOSITORY}", f"--config-file={REPOSITORY / 'tests' / 'pytest.ini'}"]
    os.chdir(REPOSITORY)
    sys.exit(pytest.main([*options, *sys.argv[1:]]))


if __name__ == "__main__":
    main()
