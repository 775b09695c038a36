"""From nothing to a picture: draws prompts with CFG and with ERG in a real headless ComfyUI, and labels them.

Runs the shipped example workflow once for each prompt, with the same seeds on both sides.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torchvision.transforms.functional import pil_to_tensor, to_pil_image
from torchvision.utils import make_grid

from .comfyui_server import running_server
from .environment import DEV, REPOSITORY

WORKFLOW = REPOSITORY / "example_workflows" / "ERG beside CFG (demo model).json"
OUTPUT = DEV / "output"
PROMPTS = (
    "a red circle left of a blue square on a white background",
    "a large orange triangle above a small green square on a black background",
    "a purple square right of a yellow circle on a gray background",
)
METHODS = ("CFG", "ERG")


def main() -> None:
    if importlib.util.find_spec("comfy_cli") is None:
        sys.exit("The demo drives ComfyUI with comfy-cli, which COMFYUI_PYTHON does not have: pip install comfy-cli")
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, lambda *_: sys.exit("Stopped."))  # the server is stopped on the way out
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        print("==> Starting ComfyUI", flush=True)
        with running_server(DEV / "demo-server.log", "--output-directory", folder) as port:
            rows = [_draw(prompt, port, Path(folder) / str(i)) for i, prompt in enumerate(PROMPTS)]
            sheet = _labelled(rows)
    path = OUTPUT / "demo.png"
    sheet.save(path)
    print(f"ERG beside CFG, same prompts and seeds: {path}")


def _draw(prompt: str, port: int, folder: Path) -> dict[str, list[Path]]:
    """Runs the example workflow on a prompt; the pictures of each method, in the order of their seeds."""
    print(f"==> Drawing: {prompt}", flush=True)
    workflow = json.loads(WORKFLOW.read_text())
    for node in workflow["nodes"]:
        if node["type"] == "PrimitiveStringMultiline":
            node["widgets_values"] = [prompt]
        if node["type"] == "SaveImage":
            node["widgets_values"] = [f"{folder.name}/{node['title']}"]
    folder.mkdir()
    file = folder / "workflow.json"
    file.write_text(json.dumps(workflow))
    command = [
        sys.executable,
        "-m",
        "comfy_cli",
        "--skip-prompt",
        "--no-json",
        "run",
        "--workflow",
        str(file),
        "--wait",
    ]
    address = ["--host", "127.0.0.1", "--port", str(port)]
    done = subprocess.run([*command, *address], env={**os.environ, "DO_NOT_TRACK": "1"})
    pictures = {method: sorted(folder.glob(f"{method}_*.png")) for method in METHODS}
    if done.returncode or not all(pictures.values()):
        sys.exit(f"ComfyUI drew no picture; its log is {DEV / 'demo-server.log'}")
    return pictures


def _labelled(rows: list[dict[str, list[Path]]]) -> Image.Image:
    """One picture: a row for each prompt under its text, CFG on the left and ERG on the right."""
    blocks = [
        [
            make_grid(torch.stack([pil_to_tensor(Image.open(p)) for p in row[m]]), padding=4, pad_value=255)
            for m in METHODS
        ]
        for row in rows
    ]
    height, width = blocks[0][0].shape[1:]
    caption, gap, title = 30, 24, 44
    sheet = Image.new("RGB", (2 * width + gap, title + len(rows) * (height + caption)), "white")
    draw, large, small = ImageDraw.Draw(sheet), ImageFont.load_default(26), ImageFont.load_default(17)
    for column, method in enumerate(METHODS):
        x = column * (width + gap)
        draw.text((x + 6, 6), method, "black", large)
        for i, (prompt, row) in enumerate(zip(PROMPTS, blocks)):
            y = title + i * (height + caption)
            sheet.paste(to_pil_image(row[column]), (x, y + caption))
            if column == 0:
                draw.text((6, y + 5), prompt, "black", small)
    return sheet


if __name__ == "__main__":
    main()
