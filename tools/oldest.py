"""Runs the smoke tests on the oldest ComfyUI that the pack is for, with the packages of `make setup`. Options go to pytest."""

import os
import runpy
import subprocess
import sys

from .environment import DEV, REPOSITORY, link_pack
from .setup import TOOLS, unpack_comfyui

OLDEST = DEV / "ComfyUI-oldest"


def main() -> None:
    unpack_comfyui(OLDEST, TOOLS / "comfyui-oldest.txt", sys.executable)
    version = runpy.run_path(str(OLDEST / "comfyui_version.py"))["__version__"]
    if f'requires-comfyui = ">={version}"' not in (REPOSITORY / "pyproject.toml").read_text():
        sys.exit(f"The oldest ComfyUI of the tests is {version}; requires-comfyui in pyproject.toml names another one.")
    print(f"==> Testing on ComfyUI {version}", flush=True)
    link_pack(OLDEST / "custom_nodes")
    environment = {**os.environ, "COMFYUI_PATH": str(OLDEST), "COMFYUI_PYTHON": sys.executable}
    # One server answers all of these tests: more workers would only wait for it.
    smoke = ["-m", "tools.test", "tests/server", "-m", "smoke", "-n", "0"]
    sys.exit(subprocess.run([sys.executable, *smoke, *sys.argv[1:]], env=environment).returncode)


if __name__ == "__main__":
    main()
