"""Which errors are a want of memory, what to do about one, and how a node says so."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")


class TooLittleMemory(torch.cuda.OutOfMemoryError):
    """Says what to change. Of the kind on which ComfyUI frees all models."""


def is_want_of_memory(error: Exception) -> bool:
    """Whether it is memory that was missing, a device's or the computer's: backends have words of their own for it."""
    words = str(error).lower()
    if "illegal memory" in words or "memory location" in words or "memory format" in words:
        return False
    said = ("memory", "alloc_failed", "invalid buffer size")
    return isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) or any(word in words for word in said)


@contextmanager
def saying_what_to_change(words: str) -> Iterator[None]:
    """Within, a want of memory is a TooLittleMemory with these words, unless it is one already."""
    try:
        yield
    except TooLittleMemory:
        raise
    except RuntimeError as error:
        if not is_want_of_memory(error):
            raise
        raise TooLittleMemory(words) from error


def with_fewer_at_once(work: Callable[[int], T], at_once: int) -> tuple[T, int]:
    """work(at_once), or of half as many, and again, where memory runs out; and of how many it was. Raises what `work` does
    for one."""
    while True:
        try:
            return work(at_once), at_once
        except RuntimeError as error:
            if at_once == 1 or not is_want_of_memory(error):
                raise
        at_once //= 2  # here, where the error is gone, and all that was made with it
