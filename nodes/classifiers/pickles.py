"""What the pickle of a `.pt` file would have PyTorch do, found out without doing it.

PyTorch's unpickler for weights (`torch.load(weights_only=True)`) runs no code of a file, but a few bytes can have it work without
end: tuples that hold each other twice, as the key of a dict; one text that is copied again and again; one record of numbers that
is read under thousands of names. A pickle is a program for a stack machine: here it runs on sizes in the place of objects.
"""

import pickletools
import re
from dataclasses import dataclass, field
from typing import IO, Any

import torch

from .claims import NotRead, TooMuch

# What that unpickler knows; anything else it refuses itself.
OPCODES = frozenset(
    "APPEND APPENDS BINFLOAT BINGET BININT BININT1 BININT2 BINPERSID BINPUT BINUNICODE BUILD EMPTY_DICT EMPTY_LIST EMPTY_SET "
    "EMPTY_TUPLE GLOBAL LONG1 LONG_BINGET LONG_BINPUT MARK NEWFALSE NEWOBJ NEWTRUE NONE PROTO REDUCE SETITEM SETITEMS "
    "SHORT_BINSTRING STOP TUPLE TUPLE1 TUPLE2 TUPLE3".split()
)
# Of what it calls, what weights and the settings of a training are made of. torch.Tensor would take memory of any size.
CALLED = re.compile(
    r"torch (\w+Storage|Size|device)|torch\.(storage \w+Storage|(_utils|_tensor) _rebuild_\w+|nn\.parameter (Parameter|Buffer))"
    r"|torch\.serialization _get_layout|collections (OrderedDict|Counter)|argparse Namespace|_codecs encode"
    r"|(__builtin__|builtins) (set|complex|bytearray)"
)
# Bytes are letters that are encoded, and a bytearray is made of such bytes, or of the letters.
ENCODE, BYTEARRAYS, LATIN = "_codecs encode", ("__builtin__ bytearray", "builtins bytearray"), ("latin1", "latin-1")
BYTES = object()  # the value of bytes
PUT_INTO = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD")
# Numbers and letters that are hashed or copied: some 60 for each weight. A checkpoint has weights several times.
MOST_WORK = 2**24
HUGE = 2**62  # beyond which sizes are not told apart


@dataclass
class _Object:
    """size: of an object and of all that it holds, each as often as it is reached. value: of a scalar, and of the parts of a
    short tuple; for a name, the name."""

    size: int
    value: Any = None


@dataclass
class _Machine:
    """numbers: how many each record of the file is read as, by the record's name. work: how many are hashed or copied."""

    numbers: dict[str, int] = field(default_factory=dict)
    work: int = 0
    stack: list[_Object] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)  # heights of the stack
    memo: dict[int, _Object] = field(default_factory=dict)

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        if opcode.name not in OPCODES:
            raise NotRead("it holds more than weights, which is not run.")
        if opcode.name in ("PROTO", "STOP"):
            return
        if opcode.name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif opcode.name == "MARK":
            self.marks.append(len(self.stack))
        elif opcode.name == "GLOBAL":
            self.stack.append(_Object(1, _allowed(argument)))
        elif not opcode.stack_before:
            self.stack.append(_Object(max(len(argument), 1) if isinstance(argument, str) else 1, argument))
        else:
            self.stack.append(self._made(opcode.name, self._taken(opcode)))

    def _taken(self, opcode: pickletools.OpcodeInfo) -> list[_Object]:
        """What an opcode takes from the stack, the lowest first."""
        count = len(opcode.stack_before)
        if pickletools.markobject in opcode.stack_before:
            below = opcode.stack_before.index(pickletools.markobject)
            count = len(self.stack) - self.marks.pop() + below
        if not 0 <= count <= len(self.stack) - (self.marks[-1] if self.marks else 0):
            raise ValueError("it is damaged: its pickle takes what is not there.")
        parts = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return parts

    def _made(self, name: str, parts: list[_Object]) -> _Object:
        size = min(sum(part.size for part in parts), HUGE)
        if name in PUT_INTO:
            hashed = parts[1::2] if name.startswith("SETITEM") else parts[1:] if name == "BUILD" else []
            self._do(sum(part.size for part in hashed))
            parts[0].size = size  # also where the memo has it
            return parts[0]
        if name == "REDUCE":
            self._do(size)
            called, arguments = (part.value for part in parts)
            _check_text(called, arguments)
            return _Object(size, BYTES if called == ENCODE else None)
        if name == "BINPERSID":
            self._note_record(parts[0].value)
        is_short = name.startswith("TUPLE") and len(parts) < 8
        return _Object(min(1 + size, HUGE), tuple(part.value for part in parts) if is_short else None)

    def _do(self, size: int) -> None:
        self.work += size
        if self.work > MOST_WORK:
            raise TooMuch(
                f"its pickle would hash or copy {self.work:,} letters and numbers; at most {MOST_WORK:,} are."
            )

    def _note_record(self, identity: Any) -> None:
        """identity: ("storage", type, name, device, numbers), and in old files None or (name, from, to) of a view."""
        if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
            raise ValueError("it is damaged: its pickle names no record of numbers.")
        _, _, name, _, numbers, *view = identity
        names = [name, *(part[0] if isinstance(part, tuple) and part else part for part in view if part is not None)]
        if not isinstance(numbers, int) or not all(map(_is_written_by_torch, names)):
            raise ValueError("it is damaged: its pickle names no record of numbers.")
        self.numbers[name] = max(numbers, self.numbers.get(name, 0))


def check_pickle(file: IO[bytes], size: int, count: int = 1) -> None:
    """Raises ValueError where so many pickles, one behind the other, hold more than weights, or would take more than a file of
    so many bytes holds."""
    numbers: dict[str, int] = {}
    for _ in range(count):
        machine = _Machine(numbers)
        for opcode, argument, _ in pickletools.genops(file):
            machine.step(opcode, argument)
    if sum(numbers.values()) > size:
        raise TooMuch(f"its pickle reads {sum(numbers.values()):,} numbers of a file of {size:,} bytes.")


def _allowed(name: str) -> str:
    module, _, attribute = name.partition(" ")
    is_dtype = module == "torch" and isinstance(getattr(torch, attribute, None), torch.dtype)
    if not (CALLED.fullmatch(name) or is_dtype or name in _others()):
        raise NotRead(f"it holds more than weights, {name!r:.80}, which is not run.")
    return name


def _others() -> set[str]:
    """What ComfyUI has allowed in checkpoints: of PyTorch Lightning and numpy. PyTorch 2.4 cannot be told so."""
    safe: list[Any] = getattr(torch.serialization, "get_safe_globals", list)()
    paths = (entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}" for entry in safe)
    return {" ".join(path.rsplit(".", 1)) for path in paths}


def _check_text(called: Any, arguments: Any) -> None:
    """Raises ValueError for bytes that are not made of a text, letter by letter: of other encodings, or of so many zeros."""
    is_of_text = isinstance(arguments, tuple) and arguments[1:] in ((name,) for name in LATIN)
    if called == ENCODE and not is_of_text or called in BYTEARRAYS and not (is_of_text or arguments in ((), (BYTES,))):
        raise NotRead(f"it holds more than weights, {called!r} of something else than a text, which is not run.")


def _is_written_by_torch(name: Any) -> bool:
    return isinstance(name, str) and name.isascii() and name.isdecimal()
