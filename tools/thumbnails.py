"""Thumbnails of the example workflows, as ComfyUI's frontend draws them: the last picture that a workflow saves, or, where
its weights are not there, a card with its graph.

`python -m tools.thumbnails "ERG with Flux"` draws those whose names begin so; without a name, all.
"""

import base64
import io
import json
import sys
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .comfyui_server import running_server
from .environment import REPOSITORY
from .frontend import frontend, open_workflow, run_workflow

SIZE = 512  # pixels of the longer side
GROUND, BAND, TEXT = "#141414", "#3f789e", "white"
# What a loader offers is what there is; the red frames of missing files are not part of the graph.
CAN_RUN = """async () => {
    const { output } = await window.app.graphToPrompt();
    const lists = node => Object.entries(LiteGraph.registered_node_types[node.class_type].nodeData.input.required ?? {});
    return Object.values(output).every(node => lists(node).every(([name, [type, options]]) => {
        const offered = Array.isArray(type) ? type : type === 'COMBO' ? options.options : null;
        return !offered || typeof node.inputs[name] !== 'string' || offered.includes(node.inputs[name]);
    }));
}"""
PHOTOGRAPH = """async () => {
    const { canvas, graph } = window.app;
    for (const node of graph.nodes) node.has_errors = false;
    const boxes = [...graph.nodes, ...graph.groups].map(item => item.boundingRect ?? item.getBounding());
    const left = Math.min(...boxes.map(b => b[0])), top = Math.min(...boxes.map(b => b[1]));
    const right = Math.max(...boxes.map(b => b[0] + b[2])), bottom = Math.max(...boxes.map(b => b[1] + b[3]));
    const scale = Math.min(canvas.canvas.width / (right - left), canvas.canvas.height / (bottom - top)) * 0.98;
    canvas.ds.scale = scale;
    canvas.ds.offset = [-left + 10, -top + 10];
    canvas.draw(true, true);
    const crop = [0, 0, (right - left + 20) * scale, (bottom - top + 20) * scale];
    return [canvas.canvas.toDataURL(), crop];
}"""


def main() -> None:
    names = sys.argv[1:] or [""]
    workflows = sorted((REPOSITORY / "example_workflows").glob("*.json"))
    chosen = [path for path in workflows if any(path.stem.startswith(name) for name in names)]
    if not chosen:
        sys.exit(f"No example workflow begins with {' or '.join(names)}.")
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--{kind}-directory={folder}" for kind in ("output", "temp", "user")]
        with (
            running_server(Path(folder) / "server.log", *options) as port,
            frontend(f"http://127.0.0.1:{port}") as page,
        ):
            for path in chosen:
                print(f"==> {path.stem}", flush=True)
                open_workflow(page, json.loads(path.read_text()))
                picture = _drawn(page) if page.evaluate(CAN_RUN) else _card(page, path.stem)
                picture.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
                picture.save(path.with_suffix(".jpg"), quality=85)


def _drawn(page) -> Image.Image:
    """The last picture that the workflow saves."""
    outputs = run_workflow(page)["outputs"].values()
    saved = [image for output in outputs for image in output.get("images", []) if image["type"] == "output"]
    with urllib.request.urlopen(
        urllib.parse.urljoin(page.url, f"/view?{urllib.parse.urlencode(saved[-1])}")
    ) as response:
        return Image.open(io.BytesIO(response.read())).convert("RGB")


def _card(page, title: str) -> Image.Image:
    """The workflow's graph below its name."""
    data, crop = page.evaluate(PHOTOGRAPH)
    graph = Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))).convert("RGB").crop(tuple(map(int, crop)))
    graph.thumbnail((SIZE - 24, SIZE - 24), Image.Resampling.LANCZOS)
    card = Image.new("RGB", (SIZE, 384), GROUND)
    draw = ImageDraw.Draw(card)
    draw.rectangle((0, 0, SIZE, 72), BAND)
    draw.text((SIZE // 2, 36), title, TEXT, ImageFont.load_default(30), anchor="mm")
    card.paste(graph, ((SIZE - graph.width) // 2, 72 + (312 - graph.height) // 2))
    return card


if __name__ == "__main__":
    main()
