"""Which errors are a want of memory."""

import torch


def is_want_of_memory(error: Exception) -> bool:
    """Whether it is memory that was missing, a device's or the computer's: backends have words of their own for it."""
    words = str(error).lower()
    if "illegal memory" in words or "memory location" in words or "memory format" in words:
        return False
    said = ("memory", "alloc_failed", "invalid buffer size")
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(word in words for word in said)
