"""Holds the contract against the ComfyUI that is running: whether each symbol is there, and can be used as the pack does.

Nothing is sampled and no network is built. What cannot be told so, that a symbol does what it did, is the tests' matter.
"""

import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, FunctionType

DERIVED = Path(__file__).with_name("derived.json")  # written by `python -m tools.contract`
# What is known by a name alone, which other packs may give another, or concerns single networks: it is reported, and takes
# no node away.
SOFT = ("parameters", "key", "class")


@dataclass(frozen=True)
class Row:
    """kind: 'symbol', 'member', 'parameters', 'key' or 'class'. name: of what is relied on, after the class that it is a
    member of, or the module whose source has the key. files: of the pack, that rely on it. calls: how they call it, each as
    its number of arguments, the names of others, whether these are all, and the files with this call. needs: the first
    parameters; or of a class the global name that its `forward` calls. inside: whether it is the class itself, rather than
    modules of a network, that does.
    """

    kind: str
    name: str
    owner: str = ""
    files: tuple[str, ...] = ()
    calls: tuple[tuple, ...] = ()
    needs: tuple[str, ...] = ()
    inside: bool = False

    def __str__(self) -> str:
        if self.kind == "key":
            return f"{self.name!r} in {self.owner}"
        return f"{self.owner}.{self.name}" if self.owner else self.name


@dataclass(frozen=True)
class Finding:
    """why: what is wrong with a row. files: those that rely on what is. here: False for a network that this ComfyUI does not
    have, where nothing is wrong."""

    row: Row
    why: str
    files: tuple[str, ...]
    here: bool = True

    @property
    def is_soft(self) -> bool:
        return self.row.kind in SOFT


class Moved(Exception):
    """Says what does not hold. files: those that rely on it, where these are not all of a row."""

    def __init__(self, why: str, files: tuple[str, ...] = ()):
        super().__init__(why)
        self.files = files


@dataclass(frozen=True)
class Contract:
    """rows: all that the pack relies on. nodes: for each file of nodes/ that is a node the files that it needs, its own too."""

    rows: tuple[Row, ...]
    nodes: dict[str, tuple[str, ...]]

    def effect(self, finding: Finding, names: Mapping[str, str]) -> str:
        """What a finding means: what has moved, what relies on it, and which nodes suffer. names: of the nodes' files."""
        nodes = ", ".join(names[node] for node in self.nodes_of(finding))
        suffer = "May not work as they should" if finding.is_soft else "Not available"
        return f"{finding.row} (for {', '.join(finding.files)}): {finding.why}. {suffer}: {nodes}."

    def nodes_of(self, finding: Finding) -> list[str]:
        """The nodes, by the names of their files, that need a file that relies on what does not hold."""
        return [node for node, files in self.nodes.items() if not set(files).isdisjoint(finding.files)]


def read() -> Contract:
    """The contract as it was derived from the code of this release."""
    return from_json(DERIVED.read_text(encoding="utf-8"))


def from_json(text: str) -> Contract:
    data = json.loads(text)
    rows = (Row(**{name: _tuples(value) for name, value in row.items()}) for row in data["rows"])
    return Contract(tuple(rows), {node: tuple(files) for node, files in data["nodes"].items()})


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def findings(rows: tuple[Row, ...]) -> Iterator[Finding]:
    """What does not hold of rows, and which networks are not here."""
    for row in rows:
        try:
            _CHECKS[row.kind](row)
        except _NotHere as absent:
            yield Finding(row, str(absent), row.files, here=False)
        except Moved as moved:
            yield Finding(row, str(moved), moved.files or row.files)


class _NotHere(Exception):
    """Says which network or text encoder this ComfyUI does not have."""


def _resolve(path: str):
    """What a dotted name means in the running ComfyUI. Raises Moved."""
    first, *rest = path.split(".")
    try:
        found = importlib.import_module(first)
        for name in rest:
            found = _attribute(found, name)
    except (ImportError, AttributeError) as error:
        raise Moved(str(error)) from error
    return found


def _attribute(owner, name: str):
    """An attribute, or a module of a package that nobody has imported yet."""
    if not hasattr(owner, name) and hasattr(owner, "__path__"):
        return importlib.import_module(f"{owner.__name__}.{name}")
    return getattr(owner, name)


def _check_symbol(row: Row) -> None:
    _check_calls(_resolve(row.name), row.calls, bound=0)


def _check_member(row: Row) -> None:
    owner = _resolve(row.owner)
    if not hasattr(owner, row.name) and not _is_set_by(owner, row.name):
        raise Moved(f"{owner.__name__} has no {row.name}")
    is_method = isinstance(inspect.getattr_static(owner, row.name, None), FunctionType)
    _check_calls(getattr(owner, row.name, None), row.calls, bound=1 if is_method else 0)


def _is_set_by(owner: type, name: str) -> bool:
    """Whether a method of a class, or of what it derives from, names an attribute of instances."""
    methods = (method for parent in owner.__mro__ for method in vars(parent).values())
    return any(isinstance(method, FunctionType) and name in method.__code__.co_names for method in methods)


def _check_calls(called, calls: tuple[tuple, ...], bound: int) -> None:
    """bound: how many arguments come before those of the call."""
    signature = _signature(called) if calls else None
    if signature is None:
        return
    wrong = {call: why for call in calls if (why := _why_not(signature, call, bound))}
    if wrong:
        ways = "; ".join(f"{described(call)} ({why})" for call, why in wrong.items())
        raise Moved(f"it is called with {ways}", tuple(sorted({file for call in wrong for file in call[3]})))


def _why_not(signature: inspect.Signature, call: tuple, bound: int) -> str | None:
    count, names, is_whole, _ = call
    bind = signature.bind if is_whole else signature.bind_partial
    try:
        bind(*[None] * (bound + count), **dict.fromkeys(names))
    except TypeError as error:
        return str(error)


def described(call: tuple) -> str:
    """The arguments of a call in words."""
    count, names = call[:2]
    return ", ".join([*([f"{count} argument{'s' * (count != 1)}"] if count or not names else []), *names])


def _signature(called) -> inspect.Signature | None:
    """None for what tells none: most of what is written in C."""
    try:
        return inspect.signature(called)
    except (TypeError, ValueError):
        return None


def _check_parameters(row: Row) -> None:
    signature = _signature(_resolve(row.name))
    if signature is None or inspect.Parameter.VAR_POSITIONAL in (p.kind for p in signature.parameters.values()):
        return  # another pack has wrapped it, and hands on whatever comes
    parameters = [name for name in signature.parameters if name != "self"]
    if tuple(parameters[: len(row.needs)]) != row.needs:
        raise Moved(f"its parameters are {', '.join(parameters)} rather than {', '.join(row.needs)}")


def _check_key(row: Row) -> None:
    source, name = _source(row.owner), row.name.encode()
    is_quoted = b'"%b"' % name in source or b"'%b'" % name in source
    if not is_quoted and not re.search(rb"\b%b *=|\bclass %b\b" % (name, name), source):
        raise Moved(f"{row.owner} does not have {row.name!r}")


@lru_cache(maxsize=1)  # rows are in the order of their modules
def _source(module: str) -> bytes:
    """The source of a module of ComfyUI, which is not imported for that: some are costly. Raises Moved."""
    try:
        spec = find_spec(module)
    except ImportError as error:
        raise Moved(str(error)) from error
    if spec is None or spec.origin is None:
        raise Moved(f"there is no module {module}")
    return Path(spec.origin).read_bytes()


def _check_class(row: Row) -> None:
    module, _, name = row.name.rpartition(".")
    try:
        owner = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise _NotHere(str(error)) from error
    candidates = [owner] if row.inside else _classes_of(sys.modules[module])
    if not row.needs or any(_forward_calls(candidate, row.needs) for candidate in candidates):
        return
    raise Moved(f"no `forward` {'of it' if row.inside else 'of its modules'} calls {' and '.join(row.needs)}")


def _classes_of(module) -> list[type]:
    """The classes that a module of ComfyUI has, and those of the modules that these come from."""
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    sources = {found.__module__ for found in classes if found.__module__.startswith("comfy.")}
    return [value for name in sources for value in vars(sys.modules[name]).values() if isinstance(value, type)]


def _forward_calls(owner: type, names: tuple[str, ...]) -> bool:
    """Whether the `forward` of a class calls global names, in a form that nodes/attention/rebinding.py can give another meaning."""
    forward = vars(owner).get("forward")
    if not isinstance(forward, FunctionType) or forward.__closure__:
        return False
    return all(_says(forward.__code__, name) for name in names)


def _says(code: CodeType, name: str) -> bool:
    """Whether code, or that of a function inside of it, uses a global name."""
    return name in code.co_names or any(_says(part, name) for part in code.co_consts if isinstance(part, CodeType))


_CHECKS = {
    "symbol": _check_symbol,
    "member": _check_member,
    "parameters": _check_parameters,
    "key": _check_key,
    "class": _check_class,
}
