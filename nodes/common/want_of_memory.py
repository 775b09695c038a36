"""Which errors are a want of memory, and how a node says so."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def is_want_of_memory(error: Exception) -> bool:
    """Whether it is memory that was missing, a device's or the computer's: backends have words of their own for it."""
    words = str(error).lower()
    if "illegal memory" in words or "memory location" in words or "memory format" in words:
        return False
    said = ("memory", "alloc_failed", "invalid buffer size")
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(word in words for word in said)


@contextmanager
def saying_what_to_change(words: str) -> Iterator[None]:
    """Within, a want of memory is an error with these words, of the kind on which ComfyUI frees all models."""
    try:
        yield
    except RuntimeError as error:
        if not is_want_of_memory(error):
            raise
        raise torch.cuda.OutOfMemoryError(words) from error
