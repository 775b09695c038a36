"""Runs the smoke tests on the oldest ComfyUI that the pack is for, and on packages of its time. Options go to pytest."""

import os
import runpy
import shutil
import subprocess
import sys

from .environment import DEV, REPOSITORY, link_pack
from .setup import PIP, TOOLS, run, unpack_comfyui

OLDEST = DEV / "ComfyUI-oldest"
PACKAGES = DEV / "oldest-packages"  # in front of those of `make setup`, which serve for the rest
REQUIREMENTS = TOOLS / "oldest-requirements.txt"


def main() -> None:
    unpack_comfyui(OLDEST, TOOLS / "comfyui-oldest.txt", sys.executable)
    version = runpy.run_path(str(OLDEST / "comfyui_version.py"))["__version__"]
    if f'requires-comfyui = ">={version}"' not in (REPOSITORY / "pyproject.toml").read_text():
        sys.exit(f"The oldest ComfyUI of the tests is {version}; requires-comfyui in pyproject.toml names another one.")
    _packages()
    link_pack(OLDEST / "custom_nodes")
    print(f"==> Testing on ComfyUI {version}", flush=True)
    # One server answers all of these tests: more workers would only wait for it.
    smoke = ["-m", "tools.test", "tests/server", "-m", "smoke", "-n", "0"]
    paths = os.pathsep.join(filter(None, [str(PACKAGES), os.environ.get("PYTHONPATH")]))
    oldest = {"COMFYUI_PATH": str(OLDEST), "COMFYUI_PYTHON": sys.executable, "PYTHONPATH": paths}
    sys.exit(subprocess.run([sys.executable, *smoke, *sys.argv[1:]], env={**os.environ, **oldest}).returncode)


def _packages() -> None:
    done = PACKAGES / "done.txt"  # written last
    wanted = f"{REQUIREMENTS.read_text()}{sys.version}\n"
    if done.exists() and done.read_text() == wanted:
        return
    shutil.rmtree(PACKAGES, ignore_errors=True)
    run("Installing packages of its time", sys.executable, *PIP, "install", "--no-deps", "--target", PACKAGES,
        "-r", REQUIREMENTS)  # fmt: skip
    done.write_text(wanted)


if __name__ == "__main__":
    main()
