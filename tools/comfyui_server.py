"""A real ComfyUI server with this pack, for the demo and the tests."""

import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from .environment import REPOSITORY, server_command

START_TIMEOUT = 300  # seconds; a cold disk is slow to load torch


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running_server(log: Path, *options: str):
    """The port of a ComfyUI server that answers; the server is stopped when the block ends, whatever happens in it."""
    port = free_port()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(server_command(port, *options), cwd=REPOSITORY, stdout=output, stderr=output)
        try:
            _wait_until_up(process, port, log)
            yield port
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_up(process, port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/system_stats", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    last = "".join(log.read_text().splitlines(keepends=True)[-15:])
    raise RuntimeError(f"ComfyUI did not come up; the end of {log}:\n{last}")
