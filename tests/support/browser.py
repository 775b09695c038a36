"""Tests in ComfyUI's own frontend, which is in tools/browser.py."""

import pytest

from tools.browser import BROWSER

needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium found: install the package 'chromium', or set CHROMIUM to a browser's path"
)
