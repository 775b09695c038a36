"""From nothing to a picture: draws prompts with CFG and with ERG in a real headless ComfyUI.

Runs the shipped example workflow once for each prompt; it compares both with the same seeds in one labelled picture.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .comfyui_server import running_server
from .environment import DEV, REPOSITORY

WORKFLOW = REPOSITORY / "example_workflows" / "ERG beside CFG (demo model).json"
OUTPUT = DEV / "output"
PROMPTS = (
    "a red circle left of a blue square on a white background",
    "a large orange triangle above a small green square on a black background",
    "a purple square right of a yellow circle on a gray background",
)


def main() -> None:
    if importlib.util.find_spec("comfy_cli") is None:
        sys.exit("The demo drives ComfyUI with comfy-cli, which COMFYUI_PYTHON does not have: pip install comfy-cli")
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, lambda *_: sys.exit("Stopped."))  # the server is stopped on the way out
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        print("==> Starting ComfyUI", flush=True)
        with running_server(DEV / "demo-server.log", "--output-directory", folder) as port:
            sheet = _below_each_other([_draw(prompt, port, Path(folder), i) for i, prompt in enumerate(PROMPTS)])
    path = OUTPUT / "demo.png"
    sheet.save(path)
    print(f"ERG beside CFG, same prompts and seeds: {path}")


def _draw(prompt: str, port: int, folder: Path, number: int) -> Image.Image:
    """Runs the example workflow on a prompt; the picture that it saves."""
    print(f"==> Drawing: {prompt}", flush=True)
    workflow = json.loads(WORKFLOW.read_text())
    for node in workflow["nodes"]:
        if node["type"] == "PrimitiveStringMultiline":
            node["widgets_values"] = [prompt]
        if node["type"] == "SaveImage":
            node["widgets_values"] = [f"{number}"]
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
    pictures = sorted(folder.glob(f"{number}_*.png"))
    if done.returncode or not pictures:
        sys.exit(f"ComfyUI drew no picture; its log is {DEV / 'demo-server.log'}")
    return Image.open(pictures[0]).convert("RGB")


def _below_each_other(pictures: list[Image.Image]) -> Image.Image:
    """One picture: each under its prompt."""
    caption = 34
    width, height = pictures[0].size
    sheet = Image.new("RGB", (width, len(pictures) * (height + caption)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for i, (prompt, picture) in enumerate(zip(PROMPTS, pictures)):
        y = i * (height + caption)
        draw.text((6, y + 6), prompt, "black", font)
        sheet.paste(picture, (0, y + caption))
    return sheet


if __name__ == "__main__":
    main()
