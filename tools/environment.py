"""Where ComfyUI and its Python are: the ones of `make setup`, or the user's own.

COMFYUI_PATH (a ComfyUI folder) and COMFYUI_PYTHON (the Python that runs it) choose an existing installation.
COMFYUI_FLAGS are flags of ComfyUI's own command line, such as --bf16-vae.
"""

from __future__ import annotations  # read by `make setup` on any Python

import os
import shlex
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
DEV = REPOSITORY / ".dev"
PACK = "ComfyUI-Entropy-Guidance"

OWN_COMFYUI = bool(os.environ.get("COMFYUI_PATH") or os.environ.get("COMFYUI_PYTHON"))
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or DEV / "ComfyUI").resolve()
FLAGS = shlex.split(os.environ.get("COMFYUI_FLAGS", ""))


def check_own_comfyui() -> None:
    """Exits with a message that says what to change where COMFYUI_PATH and COMFYUI_PYTHON do not name a ComfyUI."""
    for name in ("COMFYUI_PATH", "COMFYUI_PYTHON"):
        if not os.environ.get(name):
            sys.exit(f"Set {name} too: COMFYUI_PATH and COMFYUI_PYTHON go together.")
    if not (COMFYUI / "main.py").is_file():
        sys.exit(f"COMFYUI_PATH={COMFYUI} holds no main.py: name the folder of a ComfyUI installation.")
    python = os.environ["COMFYUI_PYTHON"]
    try:
        subprocess.run([python, "-c", "import torch, aiohttp"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        sys.exit(f"COMFYUI_PYTHON={python} cannot import torch and aiohttp: name the Python that runs your ComfyUI.")


def link_pack(folder: Path, name: str = PACK) -> None:
    """Links this repository into a folder, such as custom_nodes, replacing a link that points elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / name
    if link.is_symlink() and link.resolve() == REPOSITORY:
        return
    if link.exists() and not link.is_symlink():
        sys.exit(f"{link} is in the way: move it, then run this again.")
    link.unlink(missing_ok=True)
    link.symlink_to(REPOSITORY, target_is_directory=True)


def server_command(port: int, *options: str) -> list[str]:
    """The command line of a ComfyUI server with this pack. A user's own ComfyUI gets the pack without a link in it."""
    command = [sys.executable, str(COMFYUI / "main.py"), "--port", str(port), "--disable-api-nodes", *FLAGS]
    if not _has_gpu():
        command.append("--cpu")
    if OWN_COMFYUI and not any(path.resolve() == REPOSITORY for path in (COMFYUI / "custom_nodes").glob("*")):
        link_pack(DEV / "custom_nodes")
        paths = DEV / "extra_model_paths.yaml"
        paths.write_text(f"entropy_guidance:\n    custom_nodes: {DEV / 'custom_nodes'}\n")
        command += ["--extra-model-paths-config", str(paths)]
    return [*command, *options]


def _has_gpu() -> bool:
    import torch

    accelerator = getattr(torch, "accelerator", None)  # any kind; PyTorch 2.6 has it
    others = accelerator is not None and accelerator.is_available()
    return others or torch.cuda.is_available() or torch.backends.mps.is_available()
