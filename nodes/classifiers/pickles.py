"""What the pickle of a `.pt` file would have PyTorch do, found out without doing it.

PyTorch's unpickler for weights (`torch.load(weights_only=True)`) runs no code of a file, but a few bytes can have it work without
end: tuples that hold each other twice, as the key of a dict; texts that are encoded again and again; one record of numbers
that is read under thousands of names. A pickle is a program for a stack machine: here it runs on sizes in the place of objects.
"""

import pickletools
import re
from dataclasses import dataclass, field
from typing import IO, Any

import torch

from .claims import NotRun, TooMuch

# What that unpickler knows; anything else it refuses itself.
OPCODES = frozenset(
    "APPEND APPENDS BINFLOAT BINGET BININT BININT1 BININT2 BINPERSID BINPUT BINUNICODE BUILD EMPTY_DICT EMPTY_LIST EMPTY_SET "
    "EMPTY_TUPLE GLOBAL LONG1 LONG_BINGET LONG_BINPUT MARK NEWFALSE NEWOBJ NEWTRUE NONE PROTO REDUCE SETITEM SETITEMS "
    "SHORT_BINSTRING STOP TUPLE TUPLE1 TUPLE2 TUPLE3".split()
)
# Of what that unpickler calls, what weights and the settings of a training are made of: not bytearray, which takes any size.
CALLED = re.compile(
    r"torch (\w+Storage|Size|device)|torch\.(storage \w+Storage|(_utils|_tensor) _rebuild_\w+|nn\.parameter (Parameter|Buffer))"
    r"|torch\.serialization _get_layout|collections OrderedDict|argparse Namespace|_codecs encode"
)
ENCODE, ENLARGES = "_codecs encode", 10  # times; most encodings do less
LARGEST_KEY = 10_000  # numbers and letters, each as often as it is reached
LARGEST_TEXT = 2**26  # letters
HUGE = 2**62  # beyond which sizes are not told apart


@dataclass
class _Object:
    """size: of an object and of all that it holds, each as often as it is reached. value: of a scalar, and of the parts of a
    tuple; for a name, the name."""

    size: int
    value: Any = None


@dataclass
class _Machine:
    """numbers: how many each record of the file is read as, by the record's name."""

    numbers: dict[Any, int] = field(default_factory=dict)
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        if opcode.name not in OPCODES:
            raise NotRun("it holds more than weights, which is not run.")
        if opcode.name in ("PROTO", "STOP"):
            return
        if opcode.name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif opcode.name == "MARK":
            self.stack.append(pickletools.markobject)
        elif opcode.name == "GLOBAL":
            self.stack.append(_Object(1, _allowed(argument)))
        elif not opcode.stack_before:
            self.stack.append(_Object(max(len(argument), 1) if isinstance(argument, str) else 1, argument))
        else:
            self.stack.append(self._made(opcode, self._taken(opcode)))

    def _taken(self, opcode: pickletools.OpcodeInfo) -> list[_Object]:
        """What an opcode takes from the stack, the lowest first."""
        if pickletools.markobject not in opcode.stack_before:
            return self._popped(len(opcode.stack_before))
        behind = len(self.stack) - 1 - self.stack[::-1].index(pickletools.markobject)
        parts = self.stack[behind + 1 :]
        del self.stack[behind:]
        return [*self._popped(opcode.stack_before.index(pickletools.markobject)), *parts]

    def _popped(self, count: int) -> list[_Object]:
        parts = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        if len(parts) < count or pickletools.markobject in parts:
            raise ValueError("it is damaged: its pickle takes what is not there.")
        return parts

    def _made(self, opcode: pickletools.OpcodeInfo, parts: list[_Object]) -> _Object:
        size = min(1 + sum(part.size for part in parts), HUGE)
        if opcode.name in ("SETITEM", "SETITEMS"):
            _check(max(key.size for key in parts[1::2]), LARGEST_KEY, "the key of a dict")
        if opcode.name == "REDUCE" and parts[0].value == ENCODE:
            size *= ENLARGES
            _check(size, LARGEST_TEXT, "a text")
        if opcode.name == "BINPERSID":
            self._note_record(parts[0].value)
        of_tuple = opcode.name.startswith("TUPLE")
        return _Object(size, tuple(part.value for part in parts) if of_tuple and len(parts) < 8 else None)

    def _note_record(self, identity: Any) -> None:
        """identity: ("storage", type, name, device, numbers), and a view of it in old files."""
        if not isinstance(identity, tuple) or len(identity) < 5 or not isinstance(identity[4], int):
            raise ValueError("it is damaged: its pickle names no record of numbers.")
        self.numbers[identity[2]] = max(identity[4], self.numbers.get(identity[2], 0))


def check_pickle(file: IO[bytes], size: int, count: int = 1) -> None:
    """Raises ValueError where so many pickles, one behind the other, hold more than weights, or would take more than a file of
    so many bytes holds."""
    machine = _Machine()
    for _ in range(count):
        for opcode, argument, _ in pickletools.genops(file):
            machine.step(opcode, argument)
        machine.stack.clear()
        machine.memo.clear()
    numbers = sum(machine.numbers.values())
    if numbers > size:
        raise TooMuch(f"its pickle reads {numbers:,} numbers of a file of {size:,} bytes.")


def _allowed(name: str) -> str:
    module, _, attribute = name.partition(" ")
    if not (CALLED.fullmatch(name) or module == "torch" and isinstance(getattr(torch, attribute, None), torch.dtype)):
        raise NotRun(f"it holds more than weights, {name!r:.80}, which is not run.")
    return name


def _check(size: int, most: int, what: str) -> None:
    if size > most:
        raise TooMuch(f"it would make {what} of {size:,} letters and numbers; at most {most:,} are made.")
