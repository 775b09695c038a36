"""What the frontend's help panel shows of a node."""

from playwright.sync_api import Page

from tools.frontend import open_help

WIDTH = "async image => { await image.decode(); return image.naturalWidth }"
WELCOME = "[role=dialog]"  # a new user's first window, which comes sooner or later


def shown_help(page: Page, node: str) -> tuple[str, int]:
    """The title of the help of a node in the open graph, and the width of its picture."""
    welcome = page.locator(WELCOME)
    page.add_locator_handler(welcome, lambda: page.keyboard.press("Escape"))
    open_help(page, node)
    page.remove_locator_handler(welcome)
    picture = page.locator(".node-help-content img").first.evaluate(WIDTH)
    return page.locator(".node-help-content h1").first.inner_text(), picture
