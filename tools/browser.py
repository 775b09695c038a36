"""ComfyUI's frontend in a headless Chromium, as the tests and the screenshots open it."""

import os
import shutil
from contextlib import contextmanager

BROWSER = (
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


@contextmanager
def frontend(url: str, width: int = 1900, height: int = 1000, language: str = "en-US"):
    """The page of a ComfyUI that answers at url, loaded with this pack's nodes. language: that the browser asks for."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=OPTIONS)
        page = browser.new_page(viewport={"width": width, "height": height}, locale=language)
        page.goto(url)
        page.wait_for_function(READY, timeout=120_000)
        yield page
        browser.close()


def open_help(page, node_type: str) -> None:
    """Selects the first node of a type and opens its help, as an artist does."""
    page.evaluate(SHOW_NODE, node_type)
    page.get_by_test_id("info-button").click()
