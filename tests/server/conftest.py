"""A real ComfyUI server with the pack, for all tests of this folder."""

import json
import time

import pytest
import requests

from tools.comfyui_server import running_server
from tools.environment import REPOSITORY

TIMEOUT = 300  # seconds for one prompt


class Client:
    """ComfyUI's HTTP API, as a graph editor uses it."""

    def __init__(self, port: int):
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str):
        response = requests.get(self.url + path, timeout=30)
        response.raise_for_status()
        return response.json()

    def get_text(self, path: str) -> str:
        response = requests.get(self.url + path, timeout=30)
        response.raise_for_status()
        return response.text

    def post(self, path: str, data: dict) -> requests.Response:
        return requests.post(self.url + path, json=data, timeout=30)

    def queue(self, graph: dict) -> str:
        response = self.post("/prompt", {"prompt": graph})
        assert response.ok, response.text
        return response.json()["prompt_id"]

    def wait(self, prompt_id: str) -> dict:
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            time.sleep(0.1)
        raise TimeoutError(prompt_id)

    def run(self, graph: dict) -> dict:
        return self.wait(self.queue(graph))

    def pictures(self, result: dict) -> list[bytes]:
        """The saved pictures of a finished prompt, as files."""
        assert result["status"]["status_str"] == "success", json.dumps(result["status"])
        images = [image for output in result["outputs"].values() for image in output.get("images", [])]
        return [requests.get(f"{self.url}/view", params=image, timeout=30).content for image in images]

    def error(self, result: dict) -> dict:
        """The execution error of a failed prompt: exception_message, node_type and more."""
        assert result["status"]["status_str"] == "error"
        return dict(result["status"]["messages"])["execution_error"]


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
