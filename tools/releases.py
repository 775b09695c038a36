"""Runs the smoke tests on earlier ComfyUI releases, from the oldest that the pack is for: `make test-releases`.

--oldest: on that alone, `make test-oldest`; it has packages of its time. Other options go to pytest.
"""

import argparse
import os
import runpy
import subprocess
import sys
from pathlib import Path

from packaging.version import Version

from .environment import DEV, REPOSITORY, link_pack
from .older_packages import path_with
from .setup import TOOLS, unpack_comfyui

RELEASES = TOOLS / "comfyui-releases"  # a file of a pinned source for each
REQUIREMENTS = TOOLS / "oldest-requirements.txt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oldest", action="store_true", help="on the oldest alone")
    options, for_pytest = parser.parse_known_args()
    oldest, *others = sorted(RELEASES.glob("*.txt"), key=lambda path: Version(path.stem))
    if f'requires-comfyui = ">={oldest.stem}"' not in (REPOSITORY / "pyproject.toml").read_text():
        sys.exit(
            f"The oldest ComfyUI of the tests is {oldest.stem}; requires-comfyui in pyproject.toml names another one."
        )
    failed = [] if _passes(oldest, for_pytest, PYTHONPATH=path_with(REQUIREMENTS)) else [oldest.stem]
    failed += [source.stem for source in ([] if options.oldest else others) if not _passes(source, for_pytest)]
    if failed:
        sys.exit(f"Tests failed on ComfyUI {', '.join(failed)}.")


def _passes(source: Path, for_pytest: list[str], **environment: str) -> bool:
    """Whether the smoke tests pass on a release, with further variables of the environment."""
    comfyui = DEV / "ComfyUI-releases" / source.stem
    unpack_comfyui(comfyui, source, sys.executable)
    version = runpy.run_path(str(comfyui / "comfyui_version.py"))["__version__"]
    if version != source.stem:
        sys.exit(f"{source.name} names a source of ComfyUI {version}.")
    link_pack(comfyui / "custom_nodes")
    print(f"==> Testing on ComfyUI {version}", flush=True)
    # One server answers all of these tests: more workers would only wait for it.
    smoke = ["-m", "tools.test", "tests/server", "-m", "smoke", "-n", "0"]
    there = {"COMFYUI_PATH": str(comfyui), "COMFYUI_PYTHON": sys.executable, **environment}
    return not subprocess.run([sys.executable, *smoke, *for_pytest], env={**os.environ, **there}).returncode


if __name__ == "__main__":
    main()
