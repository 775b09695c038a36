"""Runs the smoke tests on earlier ComfyUI releases, from the oldest that the pack is for: `make test-releases`.

--oldest: on that alone, `make test-oldest`; it has packages of its time. Other options go to pytest.
"""

import argparse
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

from packaging.version import Version

from .environment import DEV, REPOSITORY, link_pack
from .setup import PIP, TOOLS, run, unpack_comfyui

RELEASES = TOOLS / "comfyui-releases"  # a file of a pinned source for each
PACKAGES = DEV / "oldest-packages"  # in front of those of `make setup`, which serve for the rest
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
    _packages()
    failed = [] if _passes(oldest, for_pytest, packages=PACKAGES) else [oldest.stem]
    failed += [source.stem for source in ([] if options.oldest else others) if not _passes(source, for_pytest)]
    if failed:
        sys.exit(f"Tests failed on ComfyUI {', '.join(failed)}.")


def _passes(source: Path, for_pytest: list[str], packages: Path | None = None) -> bool:
    """Whether the smoke tests pass on a release. packages: a folder of some that it finds before others."""
    comfyui = DEV / "ComfyUI-releases" / source.stem
    unpack_comfyui(comfyui, source, sys.executable)
    version = runpy.run_path(str(comfyui / "comfyui_version.py"))["__version__"]
    if version != source.stem:
        sys.exit(f"{source.name} names a source of ComfyUI {version}.")
    link_pack(comfyui / "custom_nodes")
    print(f"==> Testing on ComfyUI {version}", flush=True)
    # One server answers all of these tests: more workers would only wait for it.
    smoke = ["-m", "tools.test", "tests/server", "-m", "smoke", "-n", "0"]
    paths = os.pathsep.join(str(path) for path in (packages, os.environ.get("PYTHONPATH")) if path)
    there = {"COMFYUI_PATH": str(comfyui), "COMFYUI_PYTHON": sys.executable, "PYTHONPATH": paths}
    return not subprocess.run([sys.executable, *smoke, *for_pytest], env={**os.environ, **there}).returncode


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
