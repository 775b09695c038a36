"""ComfyUI's own frontend in a headless Chromium, for the tests, screenshots and thumbnails."""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, sync_playwright

CHROMIUM = (
    os.environ.get("CHROMIUM")
    or shutil.which("chromium")
    or shutil.which("chromium-browser")
    or shutil.which("google-chrome")
)
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync",
           "--disable-component-update", "--no-first-run"]  # fmt: skip
READY = "() => window.app?.extensionManager && window.app.graph && window.LiteGraph?.registered_node_types?.EntropyGuidanceERG"
SHOW_NODE = """type => {
    const node = window.app.graph.nodes.find(node => node.type === type)
    window.app.canvas.selectNode(node)
    window.app.canvas.animateToBounds(node.boundingRect, { zoom: 0.4 })
}"""
# One of the frontend's stores, by name.
STORE = "document.querySelector('#vue-app').__vue_app__.config.globalProperties.$pinia._s.get"
LONGEST = 600  # seconds that a graph may run


@contextmanager
def frontend(url: str, width: int = 1900, height: int = 1000, language: str = "en-US") -> Iterator[Page]:
    """A page with the frontend of a ComfyUI server that has this pack. language: that the browser asks for."""
    if CHROMIUM is None:
        sys.exit("No Chromium found: install the package 'chromium', or set CHROMIUM to a browser's path.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        page = browser.new_page(viewport={"width": width, "height": height}, locale=language)
        page.goto(url)
        page.wait_for_function(READY, timeout=120_000)
        yield page
        browser.close()


def open_workflow(page: Page, workflow: dict) -> None:
    """As the artist does: what the editor says of missing models does not stop it."""
    page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)


def run_workflow(page: Page) -> dict:
    """Presses Run for the graph in the editor; the finished prompt, as ComfyUI's history has it."""
    before = _history(page)
    page.evaluate("() => window.app.queuePrompt(0, 1)")
    end = time.monotonic() + LONGEST
    while time.monotonic() < end:
        page.wait_for_timeout(300)
        running = page.evaluate("async () => (await fetch('/api/prompt')).json()")["exec_info"]["queue_remaining"]
        done = _history(page)
        new = [result for prompt, result in done.items() if prompt not in before]
        if new:
            return new[0]
        if not running:
            raise RuntimeError("ComfyUI took no prompt: the editor says what is wrong with the graph.")
    raise TimeoutError(f"The graph in the editor was still running after {LONGEST} seconds.")


def open_help(page: Page, node_type: str) -> None:
    """Selects the first node of a type and opens its help, as an artist does."""
    page.evaluate(SHOW_NODE, node_type)
    page.get_by_test_id("info-button").click()


def _history(page: Page) -> dict:
    return page.evaluate("async () => (await fetch('/api/history')).json()")
