"""Tests in ComfyUI's own frontend, which is in tools/frontend.py."""

import pytest

from tools.frontend import CHROMIUM

needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium found: install the package 'chromium', or set CHROMIUM to a browser's path"
)
