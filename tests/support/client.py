"""ComfyUI's HTTP API, as a graph editor uses it."""

import asyncio
import json
import struct
import time
from collections import defaultdict

import aiohttp
import requests

TIMEOUT = 300  # seconds for one prompt
TEXT = 3  # the number of ComfyUI's binary message with a text for a node
ENDS = ("execution_success", "execution_error", "execution_interrupted")


class Client:
    """Of a server on this machine."""

    def __init__(self, port: int):
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str):
        response = requests.get(self.url + path, timeout=30)
        response.raise_for_status()
        return response.json()

    def get_text(self, path: str) -> str:
        response = requests.get(self.url + path, timeout=30)
        response.raise_for_status()
        response.encoding = "utf-8"  # which ComfyUI does not say of Markdown
        return response.text

    def post(self, path: str, data: dict) -> requests.Response:
        return requests.post(self.url + path, json=data, timeout=30)

    def queue(self, graph: dict) -> str:
        # Older ComfyUIs tell the pictures of a cached prompt only to a client with a name.
        response = self.post("/prompt", {"prompt": graph, "client_id": "tests"})
        assert response.ok, response.text
        return response.json()["prompt_id"]

    def wait(self, prompt_id: str) -> dict:
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            time.sleep(0.02)
        raise TimeoutError(prompt_id)

    def run(self, graph: dict) -> dict:
        return self.wait(self.queue(graph))

    def run_and_listen(self, graph: dict) -> tuple[dict, dict[str, list[str]]]:
        """As `run`, and the texts that it had ComfyUI send for each node, in their order."""
        return asyncio.run(asyncio.wait_for(self._run_and_listen(graph), TIMEOUT))

    async def _run_and_listen(self, graph: dict) -> tuple[dict, dict[str, list[str]]]:
        texts = defaultdict(list)
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{self.url}/ws?clientId=tests") as messages:
            prompt_id = self.queue(graph)
            async for message in messages:
                if message.type is aiohttp.WSMsgType.BINARY and struct.unpack(">I", message.data[:4]) == (TEXT,):
                    (length,) = struct.unpack(">I", message.data[4:8])
                    node, text = message.data[8 : 8 + length], message.data[8 + length :]
                    texts[node.decode()].append(text.decode())
                elif message.type is aiohttp.WSMsgType.TEXT:
                    event = message.json()
                    if event["type"] in ENDS and event["data"]["prompt_id"] == prompt_id:
                        break
        return self.wait(prompt_id), dict(texts)

    def pictures(self, result: dict) -> list[bytes]:
        """The saved pictures of a finished prompt, as files."""
        assert result["status"]["status_str"] == "success", json.dumps(result["status"])
        images = [image for output in result["outputs"].values() for image in output.get("images", [])]
        return [requests.get(f"{self.url}/view", params=image, timeout=30).content for image in images]

    def error(self, result: dict) -> dict:
        """The execution error of a failed prompt: exception_message, node_type and more."""
        assert result["status"]["status_str"] == "error"
        return dict(result["status"]["messages"])["execution_error"]

    def forget(self) -> None:
        """Has ComfyUI forget what earlier prompts made.

        It does so between two prompts, and may take one that is queued at once before: so another one runs in between.
        """
        self.post("/free", {"free_memory": True, "unload_models": True})
        latent = {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}}
        saved = {"class_type": "SaveLatent", "inputs": {"samples": ["latent", 0], "filename_prefix": "between"}}
        self.run({"latent": latent, "saved": saved})
