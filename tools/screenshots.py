"""Takes the screenshots of README and docs anew, docs/screenshots: `python -m tools.screenshots`.

A real ComfyUI with this pack, its frontend in a headless Chromium, and the demo model. Some minutes on two cores.
"""

import io
import json
import tempfile
from pathlib import Path

from PIL import Image

from .comfyui_server import running_server
from .environment import DEV, PACK, REPOSITORY
from .frontend import frontend, open_help, open_workflow

FOLDER = REPOSITORY / "docs" / "screenshots"
WORKFLOW = REPOSITORY / "example_workflows" / "A first look at ERG (demo model).json"
WIDTH, HEIGHT = 1600, 900
SETTLED = 2000  # milliseconds after which the frontend has drawn what it was asked for
RUN = 600_000  # milliseconds that a queued graph may take
DRAWN = """() => window.app.graph.nodes.filter(node => ['SaveImage', 'PreviewImage'].includes(node.type))
    .every(node => node.imgs?.length)"""
LOADED = "() => [...document.images].filter(image => image.src.includes('workflow_templates')).every(image => image.naturalWidth)"
# Text at any zoom, and nothing over the graph that the page does not speak of.
SETTINGS = {"LiteGraph.Canvas.MinFontSizeForLOD": 0, "Comfy.Minimap.Visible": False, "Comfy.Graph.CanvasInfo": False}
SET = (
    "settings => Object.entries(settings).forEach(([id, value]) => window.app.extensionManager.setting.set(id, value))"
)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "user").mkdir()
        options = ["--output-directory", folder, "--user-directory", f"{folder}/user", "--temp-directory", folder]
        with running_server(DEV / "screenshots-server.log", *options) as port:
            with frontend(f"http://127.0.0.1:{port}", WIDTH, HEIGHT) as page:
                page.evaluate(SET, SETTINGS)
                _templates(page)
                _graph(page)
                _help(page)


def _save(page, name: str) -> None:
    page.wait_for_timeout(SETTLED)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    path = FOLDER / f"{name}.webp"
    picture.save(path, quality=80, method=6)
    print(
        f"{path.relative_to(REPOSITORY)}: {picture.width} × {picture.height}, {path.stat().st_size} bytes", flush=True
    )


def _templates(page) -> None:
    """The pack's templates in the Templates browser."""
    page.evaluate("() => window.app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text(PACK, exact=True).first.click()
    page.wait_for_timeout(SETTLED)
    page.wait_for_function(LOADED)
    _save(page, "templates")
    page.keyboard.press("Escape")


def _graph(page) -> None:
    """The first template after it has run."""
    open_workflow(page, json.loads(WORKFLOW.read_text()))
    page.evaluate("() => window.app.queuePrompt(0, 1)")
    page.get_by_text("layers, 20 of 20 steps").wait_for(timeout=RUN)
    page.wait_for_function(DRAWN, timeout=RUN)
    page.evaluate("() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    _save(page, "graph")


def _help(page) -> None:
    """The help of ERG beside its node."""
    open_help(page, "EntropyGuidanceERG")
    _save(page, "help")


if __name__ == "__main__":
    main()
