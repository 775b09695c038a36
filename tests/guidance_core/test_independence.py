"""guidance_core is usable alone."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_guidance_core_imports_without_comfyui():
    code = (
        "import pkgutil, importlib, sys, guidance_core\n"
        "[importlib.import_module(f'guidance_core.{m.name}') for m in pkgutil.iter_modules(guidance_core.__path__)]\n"
        "assert not [m for m in sys.modules if m.split('.')[0] in ('comfy', 'comfy_api', 'nodes')]"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
