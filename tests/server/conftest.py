"""A real ComfyUI server with the pack, for all tests of this folder."""

import pytest
from client import Client

from tools.comfyui_server import running_server
from tools.environment import REPOSITORY


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    (folder / "user").mkdir()
    options = [
        "--output-directory",
        str(folder),
        "--user-directory",
        str(folder / "user"),
        "--temp-directory",
        str(folder),
    ]
    with running_server(folder / "server.log", *options) as port:
        client = Client(port)
        client.log = folder / "server.log"
        yield client


@pytest.fixture(scope="session")
def workflows():
    return sorted((REPOSITORY / "example_workflows").glob("*.json"))
