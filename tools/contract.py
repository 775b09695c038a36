"""What the pack relies on in ComfyUI, read from the pack's own code. `python -m tools.contract` writes the contract anew.

It writes contract/derived.json, which ComfyUI loads with the pack, and docs/comfyui-contract.md. No ComfyUI is needed. Only
code that a user's ComfyUI loads counts: the menu of the pack's __init__.py, and what its nodes import.
"""

import ast
import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from contract.by_hand import ASKED_FOR, KEYS, MEMBERS, PARAMETERS
from contract.check import DERIVED, Contract, Row, described, from_json

from .environment import REPOSITORY

PAGE = REPOSITORY / "docs" / "comfyui-contract.md"
OF_COMFYUI = re.compile(
    r"(comfy|comfy_\w+|comfyui_version|execution|folder_paths|latent_preview|node_helpers|nodes|server)(\.|$)"
)
CLASS = re.compile(r"comfy\w*(\.\w+)+\.[A-Z]\w*")
OWN_KEYS = "entropy_guidance"  # how the pack's own keys in ComfyUI's dicts begin


@dataclass
class Source:
    """What one file says of ComfyUI. Its names are spelled as they are in the code.

    imports: modules of the pack. symbols, members: with the calls of each; members also behind the name of what they are
    taken from. strings: without docstrings. keys: behind the dict that each is read from; "=NAME" stands for one of constants.
    classes: those that are named by a string, with the global names that go with each and whether that stands in the
    class itself.
    """

    imports: set[str] = field(default_factory=set)
    symbols: dict[str, set] = field(default_factory=lambda: defaultdict(set))
    members: dict[str, set] = field(default_factory=lambda: defaultdict(set))
    inherited: dict[tuple[str, str], set] = field(default_factory=lambda: defaultdict(set))
    strings: set[str] = field(default_factory=set)
    keys: set[tuple[str, str]] = field(default_factory=set)
    constants: dict[str, str] = field(default_factory=dict)
    classes: dict[str, tuple[tuple[str, ...], bool]] = field(default_factory=dict)


class Reader(ast.NodeVisitor):
    """Reads one file of the pack. package: the names of the folders that it is in."""

    def __init__(self, package: tuple[str, ...]):
        self.package, self.source = package, Source()
        self.names: dict[str, str] = {}  # what local names stand for in ComfyUI
        self.bases: list[tuple[str | None, set[str]]] = []  # of the classes around: ComfyUI's class, and own names

    def visit_Import(self, node):
        for alias in node.names:
            if OF_COMFYUI.match(alias.name):
                self.names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
                self.source.symbols[alias.name] |= set()

    def visit_ImportFrom(self, node):
        if node.level:
            base = [*self.package[: len(self.package) - node.level + 1], *filter(None, [node.module])]
            self.source.imports |= {".".join(base), *(".".join([*base, alias.name]) for alias in node.names)}
        elif OF_COMFYUI.match(node.module):
            for alias in node.names:
                self.names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                self.source.symbols[f"{node.module}.{alias.name}"] |= set()

    def visit_Assign(self, node):
        symbol, target = self._symbol(node.value), node.targets[0]
        if symbol and isinstance(target, ast.Name):
            self.names[target.id] = symbol
        if isinstance(target, ast.Name) and isinstance(node.value, ast.Dict):
            self._table(target.id, node.value)
        if isinstance(target, ast.Name) and isinstance(getattr(node.value, "value", None), str):
            self.source.constants[target.id] = node.value.value
        self.generic_visit(node)

    def visit_AnnAssign(self, node):
        if isinstance(node.target, ast.Name) and isinstance(node.value, ast.Dict):
            self._table(node.target.id, node.value)
        self.generic_visit(node)

    def visit_ClassDef(self, node):
        base = next(filter(None, map(self._symbol, node.bases)), None)
        own = {inner.name for inner in node.body if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)}
        own |= {
            inner.attr
            for inner in ast.walk(node)
            if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store)
        }
        self.bases.append((base, own))
        self.generic_visit(node)
        self.bases.pop()

    def visit_Call(self, node):
        starred = any(isinstance(argument, ast.Starred) for argument in node.args)
        count = next((i for i, argument in enumerate(node.args) if isinstance(argument, ast.Starred)), len(node.args))
        names = tuple(sorted(keyword.arg for keyword in node.keywords if keyword.arg))
        whole = not starred and all(keyword.arg for keyword in node.keywords)
        self._use(node.func, (count, names, whole))
        if isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
            self._key(node.func.value, node.args[0])
        if isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            self._member(_last(node.args[0]), getattr(node.args[1], "value", ""))
        for child in (*node.args, *node.keywords):
            self.visit(child)

    def visit_Attribute(self, node):
        self._use(node)

    def visit_Name(self, node):
        self._use(node)

    def visit_Subscript(self, node):
        self._key(node.value, node.slice)
        self.generic_visit(node)

    def visit_Compare(self, node):
        if isinstance(node.ops[0], ast.In | ast.NotIn):
            self._key(node.comparators[0], node.left)
        self.generic_visit(node)

    def visit_Tuple(self, node):
        """(TABLE, {"name": ...}) says which global names the modules of a table's networks call."""
        if len(node.elts) == 2 and isinstance(node.elts[0], ast.Name) and isinstance(node.elts[1], ast.Dict):
            for name in self.tables.get(node.elts[0].id, ()):
                self.source.classes[name] = (tuple(key.value for key in node.elts[1].keys), False)
        self.generic_visit(node)

    def visit_Expr(self, node):
        if not isinstance(node.value, ast.Constant):  # which is a docstring
            self.generic_visit(node)

    def visit_Constant(self, node):
        if isinstance(node.value, str):
            self.source.strings.add(node.value)
            if CLASS.fullmatch(node.value):
                self.source.classes.setdefault(node.value, ((), False))

    def read(self, tree: ast.Module) -> Source:
        self.tables: dict[str, list[str]] = {}
        self.visit(tree)
        return self.source

    def _use(self, node: ast.expr, call: tuple | None = None) -> None:
        """An expression that is read, or called in some way."""
        calls = {call} if call else set()
        if symbol := self._symbol(node):
            self.source.symbols[symbol] |= calls
        elif isinstance(node, ast.Attribute):
            self._member(_last(node.value), node.attr, calls)
            self._inherited(node, calls)
            self.visit(node.value)
        elif not isinstance(node, ast.Name):
            self.visit(node)

    def _member(self, owner: str, name: str, calls: set = frozenset()) -> None:
        for spelling in (name, f"{owner}.{name}"):
            self.source.members[spelling] |= calls

    def _inherited(self, node: ast.Attribute, calls: set) -> None:
        base, own = self.bases[-1] if self.bases else (None, set())
        if base is None:
            return
        if isinstance(node.value, ast.Name) and node.value.id == "self" and node.attr not in own:
            self.source.inherited[base, node.attr] |= calls
        if isinstance(node.value, ast.Call) and _last(node.value.func) == "super":
            if node.attr == "__init__":
                self.source.symbols[base] |= calls
            else:
                self.source.inherited[base, node.attr] |= calls

    def _key(self, owner: ast.expr, key: ast.expr) -> None:
        if isinstance(key, ast.Constant | ast.Name):
            self.source.keys.add((_last(owner), str(key.value) if isinstance(key, ast.Constant) else f"={key.id}"))

    def _symbol(self, node: ast.expr) -> str | None:
        """The dotted name in ComfyUI that an expression stands for."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id)
        owner = self._symbol(node.value) if isinstance(node, ast.Attribute) else None
        return owner and f"{owner}.{node.attr}"

    def _table(self, table: str, values: ast.Dict) -> None:
        names = [key.value for key in values.keys if isinstance(key, ast.Constant) and CLASS.fullmatch(str(key.value))]
        self.tables[table] = names
        for key, value in zip(values.keys, values.values):
            first = value.elts[0] if isinstance(value, ast.Tuple) and value.elts else None
            if isinstance(first, ast.Constant) and getattr(key, "value", None) in names:
                self.source.classes[key.value] = ((first.value,), True)


def _last(node: ast.expr) -> str:
    """The last name of what something is taken from."""
    return getattr(node, "attr", getattr(node, "id", ""))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix("__init__").rstrip(".")


def read_sources() -> dict[str, Source]:
    """All modules that the pack's nodes import, and its __init__, by the paths of their files."""
    start, *nodes = (REPOSITORY / "__init__.py", *(REPOSITORY / "nodes" / f"{file}.py" for file in menu().values()))
    found, new = {}, [start, *nodes]
    while new:
        path = new.pop()
        name = path.relative_to(REPOSITORY).as_posix()
        if name not in found:
            reader = Reader(path.parent.relative_to(REPOSITORY).parts)
            found[name] = reader.read(ast.parse(path.read_text(encoding="utf-8")))
            new += _files(found[name].imports)
    return found


def menu() -> dict[str, str]:
    """The file of each node's class, as the pack's __init__ has them."""
    tree = ast.parse((REPOSITORY / "__init__.py").read_text(encoding="utf-8"))
    (table,) = (node.value for node in tree.body if isinstance(node, ast.Assign) and _last(node.targets[0]) == "NODES")
    return ast.literal_eval(table)


def _files(modules: set[str]) -> list[Path]:
    places = [REPOSITORY.joinpath(*module.split(".")) for module in modules if module]
    files = (file for place in places for file in (place.with_suffix(".py"), place / "__init__.py"))
    return [file for file in files if file.is_file()]


def derive() -> Contract:
    """The contract of the code as it is."""
    sources = read_sources()
    rows = [*_symbols(sources), *_members(sources), *_keys(sources), *_classes(sources)]
    rows += _parameters(rows)
    undeclared = sorted(undeclared_keys(sources))
    if undeclared:
        raise SystemExit(
            f"contract/by_hand.py says of no ComfyUI module that it has these keys: {', '.join(undeclared)}"
        )
    nodes = {file: ("__init__.py", *sorted(_closure(f"nodes/{file}.py", sources))) for file in menu().values()}
    return Contract(tuple(sorted(rows, key=lambda row: (row.kind, row.owner, row.name))), nodes)


def _closure(file: str, sources: dict[str, Source]) -> set[str]:
    """A file and all of the pack that it imports, at once or later."""
    found, new = set(), {file}
    while new:
        found |= new
        new = {
            path.relative_to(REPOSITORY).as_posix() for name in new for path in _files(sources[name].imports)
        } - found
    return found


def _gathered(uses) -> dict:
    """For each name its files and calls. uses: (name, file, calls)."""
    found = defaultdict(lambda: (set(), defaultdict(set)))
    for name, file, calls_there in uses:
        files, calls = found[name]
        files.add(file)
        for call in calls_there:
            calls[call].add(file)
    return {
        name: (tuple(sorted(files)), tuple((*call, tuple(sorted(calls[call]))) for call in sorted(calls)))
        for name, (files, calls) in found.items()
    }


def _symbols(sources: dict[str, Source]) -> list[Row]:
    uses = [
        (name, file, calls)
        for file, source in sources.items()
        for name, calls in source.symbols.items()
        if calls or not any(other.startswith(f"{name}.") for other in source.symbols)  # which says more
    ]
    return [Row("symbol", name, "", files, calls) for name, (files, calls) in _gathered(uses).items()]


def _members(sources: dict[str, Source]) -> list[Row]:
    uses = [
        ((owner, spelling.rpartition(".")[2]), file, source.members[spelling])
        for owner, spellings in MEMBERS.items()
        for spelling in spellings
        for file, source in sources.items()
        if spelling in source.members
    ]
    uses += [(member, file, calls) for file, source in sources.items() for member, calls in source.inherited.items()]
    return [Row("member", name, owner, files, calls) for (owner, name), (files, calls) in _gathered(uses).items()]


def _keys(sources: dict[str, Source]) -> list[Row]:
    uses = [(spelling, file, set()) for spelling in KEYS for file, source in sources.items() if _uses(source, spelling)]
    found = _gathered(uses)
    return [Row("key", name.rpartition(".")[2], KEYS[name], files) for name, (files, _) in found.items()]


def _uses(source: Source, spelling: str) -> bool:
    owner, _, key = spelling.rpartition(".")
    return (owner, key) in source.keys if owner else key in source.strings


def _classes(sources: dict[str, Source]) -> list[Row]:
    uses = [((name, *needs), file, set()) for file, source in sources.items() for name, needs in source.classes.items()]
    return [
        Row("class", name, "", files, needs=needs, inside=inside)
        for (name, needs, inside), (files, _) in _gathered(uses).items()
    ]


def _parameters(rows: list[Row]) -> list[Row]:
    files = {row.name: row.files for row in rows if row.kind in ("symbol", "key")}
    return [Row("parameters", name, "", files[through], needs=needs) for name, needs, through in PARAMETERS]


def undeclared_keys(sources: dict[str, Source]) -> set[str]:
    """Keys that the pack reads from ComfyUI's options, and that the part by hand does not know."""
    found = {key for source in sources.values() for owner, key in source.keys if owner.endswith("options")}
    # A constant may come from another file.
    found |= {value for source in sources.values() for name, value in source.constants.items() if f"={name}" in found}
    return {key for key in found - {*KEYS, *ASKED_FOR} if not key.startswith((OWN_KEYS, "="))}


def unused_by_hand(contract: Contract) -> list[str]:
    """What the part by hand has and no file of the pack uses any more."""
    members = {(row.owner, row.name) for row in contract.rows if row.kind == "member"}
    keys = {(row.owner, row.name) for row in contract.rows if row.kind == "key"}
    by_hand = [(owner, spelling, members) for owner, spellings in MEMBERS.items() for spelling in spellings]
    by_hand += [(module, spelling, keys) for spelling, module in KEYS.items()]
    return [
        f"{owner}: {spelling}" for owner, spelling, used in by_hand if (owner, spelling.rpartition(".")[2]) not in used
    ]


def as_json(contract: Contract) -> str:
    """A row a line, so that a change of the code is a change of few lines."""
    plain = [{name: value for name, value in vars(row).items() if value} for row in contract.rows]
    rows = ",\n".join(json.dumps(row) for row in plain)
    nodes = ",\n".join(f"{json.dumps(node)}: {json.dumps(files)}" for node, files in contract.nodes.items())
    return f'{{"rows": [\n{rows}\n],\n"nodes": {{\n{nodes}\n}}}}\n'


HEAD = """# What the pack relies on in ComfyUI

Written by `python -m tools.contract` from the pack's code, and by hand in `contract/by_hand.py` where code does not say it.
The tests hold every row against ComfyUI; `make doctor` holds them against yours, and so does the pack when ComfyUI loads it:
where a symbol has moved, the nodes that need it are left out, and one message in the log names both.
"""
TITLES = {
    "symbol": ("Symbols", "What is imported, and how it is called: how many arguments, and the names of others.", ("symbol", "called with")),
    "member": ("Members", "What is used of ComfyUI's objects, which no import names.", ("member", "called with")),
    "parameters": ("Parameters", "What ComfyUI calls by position, and the pack takes part in by position. Other names are reported and take no node away: another pack may have replaced the function.", ("function", "first parameters")),
    "key": ("Keys", "Of the dicts that ComfyUI hands around. Only the source of ComfyUI can be asked for them, so one that is gone is reported and takes no node away.", ("key", "written or read in")),
    "class": ("Networks", "That the pack knows by the name of their class. Not every release of ComfyUI has them all; one that is there and has changed is reported and takes no node away.", ("class", "whose forward calls")),
}  # fmt: skip


def page(contract: Contract) -> str:
    return "\n".join([HEAD, *(_section(kind, contract) for kind in TITLES)])


def _section(kind: str, contract: Contract) -> str:
    title, what, columns = TITLES[kind]
    lines = [f"| {' | '.join([*columns, 'relied on in'])} |", "|---|---|---|"]
    lines += [_line(row) for row in contract.rows if row.kind == kind]
    return "\n".join([f"## {title}", "", what, "", *lines, ""])


def _line(row: Row) -> str:
    name = row.name if row.kind == "key" else str(row)
    ways = {
        "key": f"`{row.owner}`",
        "class": " ".join(f"`{name}`" for name in row.needs),
        "parameters": ", ".join(row.needs),
    }
    way = ways.get(row.kind, _ways_to_call(row.calls))
    return f"| `{name}` | {way} | {', '.join(row.files)} |"


def _ways_to_call(calls: tuple[tuple, ...]) -> str:
    """Two ways apart, more of them together."""
    ways = list(dict.fromkeys(map(described, calls)))
    if len(ways) < 3:
        return "; or ".join(ways)
    counts, names = {call[0] for call in calls}, {name for call in calls for name in call[1]}
    most = f"up to {max(counts)} argument{'s' * (max(counts) != 1)}"
    return ", ".join([*([most] if max(counts) else []), *sorted(names)])


def main() -> None:
    contract = derive()
    assert from_json(as_json(contract)) == contract
    DERIVED.write_text(as_json(contract), encoding="utf-8")
    PAGE.write_text(page(contract), encoding="utf-8")
    print(f"{len(contract.rows)} rows: {DERIVED}, {PAGE}")


if __name__ == "__main__":
    main()
