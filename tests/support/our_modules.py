"""The modules of this repository and what they import, read from their text."""

import ast
import sys
from functools import cache
from pathlib import Path

from tools.environment import COMFYUI

REPOSITORY = Path(__file__).resolve().parents[2]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix("__init__").rstrip(".")


MODULES = {
    module_of(path): path
    for path in (REPOSITORY / "__init__.py", *REPOSITORY.glob("*/**/*.py"))
    if not path.relative_to(REPOSITORY).parts[0].startswith(".")
}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def imports(module: str) -> frozenset[str]:
    """The modules that a module of this repository imports, wherever in its code; those of this repository by their path."""
    package = MODULES[module].parent.relative_to(REPOSITORY).parts
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            inner = {f"{base}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= inner or {base}
    return frozenset(found)


def packages(modules: set[str]) -> set[str]:
    """What modules import that is neither Python's, ComfyUI's nor of this repository, by the names of imports."""
    names = {name.split(".")[0] for module in modules for name in imports(module) - MODULES.keys()}
    return {name for name in names - sys.stdlib_module_names if not list(COMFYUI.glob(f"{name}*"))}


def loaded_by_comfyui() -> set[str]:
    """What is reached from the pack's __init__ and from the menu, whose files it imports by their names."""
    loaded, new = set(), {"", *(module for module, path in MODULES.items() if path.parent == REPOSITORY / "nodes")}
    while new:
        loaded |= new
        new = {other for module in new for other in imports(module) & MODULES.keys()} - loaded
    return loaded
