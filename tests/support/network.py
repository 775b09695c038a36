"""Sees whatever Python code asks of a network, and refuses it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

LOOK_UPS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
CONNECTIONS = ("socket.connect", "socket.sendto", "socket.sendmsg")
_watching: list[list[str]] = []  # what was asked, for each that watches now


@contextmanager
def no_network() -> Iterator[list[str]]:
    """Within, asking for a name or a connection is a PermissionError. Gives a list of what was asked, swallowed or not."""
    _listen()
    _watching.append([])
    try:
        yield _watching[-1]
    finally:
        _watching.pop()


@cache  # an audit hook stays as long as its process
def _listen() -> None:
    sys.addaudithook(_refuse)


def _refuse(event: str, args: tuple) -> None:
    to_a_path = event in CONNECTIONS and isinstance(args[-1], str | bytes)  # of a local socket
    if not _watching or event not in LOOK_UPS + CONNECTIONS or to_a_path:
        return
    test = os.environ.get("PYTEST_CURRENT_TEST", "no test")
    _watching[-1].append(f"{event} {args} in {test}")
    raise PermissionError(f"{event}: nothing may be asked of a network here.")
