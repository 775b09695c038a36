"""The pack asks for nothing from a network: all of tests/nodes runs without one (`conftest.py`); that it does is shown here."""

import socket

import pytest

from tests.support.network import no_network


@pytest.mark.parametrize(
    "ask", [lambda: socket.create_connection(("localhost", 9)), lambda: socket.gethostbyname("localhost")]
)
def test_what_is_asked_is_seen_and_refused(ask):
    with no_network() as asked, pytest.raises(PermissionError):
        ask()
    assert len(asked) == 1 and "localhost" in asked[0]


def test_loading_asks_for_nothing(asked_while_loading):
    assert asked_while_loading == []
