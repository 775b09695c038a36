"""ComfyUI's own frontend in a headless Chromium."""

import os
import shutil
from contextlib import contextmanager

import pytest
from playwright.sync_api import sync_playwright

BROWSER = (
    os.environ.get("CHROMIUM")
    or shutil.which("chromium")
    or shutil.which("chromium-browser")
    or shutil.which("google-chrome")
)
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync",
           "--disable-component-update", "--no-first-run"]  # fmt: skip
READY = "() => window.app?.extensionManager && window.app.graph && window.LiteGraph?.registered_node_types?.EntropyGuidanceERG"

needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium found: install the package 'chromium', or set CHROMIUM to a browser's path"
)


@contextmanager
def open_frontend(url: str, language: str = "en-US"):
    """A page with the frontend, for an artist whose browser asks for this language."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=OPTIONS)
        page = browser.new_page(viewport={"width": 1900, "height": 1000}, locale=language)
        page.goto(url)
        page.wait_for_function(READY, timeout=120_000)
        yield page
        browser.close()
