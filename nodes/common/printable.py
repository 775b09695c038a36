"""Words that a log can print."""

import traceback


def printable(text: str) -> str:
    """A text with lone halves of a character (U+D800 to U+DFFF) written out, as \\udcff: names of files and JSON may hold
    them. No log can print them, and ComfyUI's worker ends where one is logged."""
    return text.encode("utf-8", "backslashreplace").decode()


def printable_cause(error: Exception) -> Exception | None:
    """What to raise another error from: `error`, or None where its traceback, which ComfyUI logs, cannot be printed."""
    words = "".join(traceback.format_exception(error))
    return error if words == printable(words) else None
