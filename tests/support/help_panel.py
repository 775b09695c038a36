"""The help of a node in the frontend, opened as an artist does: click on the node, then on the button above it."""

ALONE = """type => {
    const node = window.LiteGraph.createNode(type)
    node.pos = [600, 300]
    window.app.graph.clear()
    window.app.graph.add(node)
    window.app.canvas.ds.reset()
}"""
TITLE = {"x": 650, "y": 285}
LOADED = "() => document.querySelector('.node-help-content img')?.naturalWidth"
TEMPLATES = "[role=dialog]"  # which greet a new user, sooner or later


def shown_help(page, node: str) -> tuple[str, int]:
    """The title of the help of a node, and the width of its picture once it is there."""
    templates = page.locator(TEMPLATES)
    page.add_locator_handler(templates, lambda: page.keyboard.press("Escape"))
    page.evaluate(ALONE, node)
    page.locator("#graph-canvas").click(position=TITLE)
    page.get_by_test_id("info-button").click()
    page.remove_locator_handler(templates)
    width = page.wait_for_function(LOADED, timeout=30_000).json_value()
    return page.locator(".node-help-content h1").first.inner_text(), width
