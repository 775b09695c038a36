"""A thousand mixed prompts in one server, and what its process holds on the way: `python -m benchmarks.endurance`.

ERG, C-ERG, CADS, guiders, classifiers, DDPM, calibrations, records, errors and interrupts in cycles of twenty, behind each of
which a census is taken. All models stay loaded throughout. The first cycles fill what is bounded (caches, records, ComfyUI's
history is cleared) and are not judged. ComfyUI runs with --cache-classic: its default cache keeps results on purpose, as long as
memory is free. As many prompts of ComfyUI's own nodes alone, in a server of their own, say what growth is not this pack's. Fails
where anything that can be counted grows, or the process's memory surely more than with ComfyUI's nodes alone. Some forty minutes
on two cores. Writes docs/results/endurance.json and docs/endurance.png and .svg.
"""

import argparse
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import psutil
from client import Client
from graphs import node
from tqdm import tqdm

from tools.comfyui_server import running_server
from tools.environment import DEV, REPOSITORY

from .. import figure_style, results
from .mix import Prompt, of_comfyui, of_cycle, with_loaders
from .trend import trend

CYCLES, WARM_UP = 50, 10
OURS, ALONE = "with this pack's nodes", "ComfyUI's nodes alone"
RSS = "RSS, MiB"
MEASURES = (RSS, "tensors", "tensors, MiB", "loaded models", "files", "threads")
LOG = DEV / "endurance.log"
PACK = "entropy-guidance"


def measure(kind: Callable[[int], list[Prompt]], cycles: int, name: str) -> tuple[list[dict], Counter]:
    """What the server's process holds after each cycle, and how the prompts ended."""
    points, ends = [], Counter()
    with TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "custom_nodes").mkdir()
        (base / "custom_nodes" / PACK).symlink_to(REPOSITORY)
        (base / "custom_nodes" / "census_pack").symlink_to(Path(__file__).parent / "census_pack")
        options = ("--base-directory", folder, "--cache-classic", "--disable-all-custom-nodes")
        with running_server(LOG, *options, "--whitelist-custom-nodes", PACK, "census_pack") as port:
            client, process = Client(port), _process_of(port)
            for number in tqdm(range(cycles), desc=name):
                ends += Counter(_run(client, prompt) for prompt in kind(number))
                points.append(_census(client, process))
    return points, ends


def _run(client: Client, prompt: Prompt) -> str:
    """Runs a prompt and says how it ended. Raises RuntimeError where it should not have ended so."""
    number = client.queue(with_loaders(prompt.graph))
    if prompt.interrupt_after is not None:
        threading.Timer(prompt.interrupt_after, client.post, ("/interrupt", {})).start()
    result = client.wait(number)["status"]
    if result["status_str"] != prompt.wanted:
        raise RuntimeError(f"a prompt ended in {result['status_str']}, not {prompt.wanted}: {result['messages'][-1]}")
    return result["messages"][-1][0].removeprefix("execution_")


def _census(client: Client, process: psutil.Process) -> dict[str, float]:
    client.post("/history", {"clear": True})
    outputs = client.run(with_loaders({"census": node("Census")}))["outputs"]
    counted = json.loads(outputs["census"]["text"][0])
    held = {RSS: process.memory_info().rss / 2**20, "files": process.num_fds(), "threads": process.num_threads()}
    return {name: {**counted, **held}[name] for name in MEASURES}


def _process_of(port: int) -> psutil.Process:
    """The server's, which is a child of this one."""
    return next(child for child in psutil.Process().children() if str(port) in child.cmdline())


def judged(points: list[dict], prompts_each: int, warm_up: int) -> dict[str, dict]:
    """For each measure where it begins and ends, its highest, and what it grows in 1,000 prompts."""
    return {
        name: {
            "first": values[0],
            "last": values[-1],
            "highest": max(values),
            "grows in 1,000 prompts": trend(values).times(1000 / prompts_each),
        }
        for name, values in _series(points, warm_up).items()
    }


def growing(ours: list[dict], alone: list[dict], warm_up: int) -> list[str]:
    """What can be counted and grows, and RSS where it surely grows more than with ComfyUI's nodes alone."""
    found, others = ({name: trend(v) for name, v in _series(points, warm_up).items()} for points in (ours, alone))
    return [name for name, of in found.items() if of.low > (max(others[name].high, 0) if name == RSS else 0)]


def _series(points: list[dict], warm_up: int) -> dict[str, list[float]]:
    return {name: [point[name] for point in points[warm_up:]] for name in MEASURES}


def draw(points: dict[str, list[dict]], warm_up: int, prompts_each: int, folder: Path) -> None:
    """A panel for each measure, over the number of prompts; the cycles that are not judged are shaded."""
    figure, panels = plt.subplots(2, 3, figsize=(11, 5.5), layout="constrained")
    for axes, name in zip(panels.flat, MEASURES):
        for (run, found), (colour, _) in zip(points.items(), figure_style.LINES):
            numbers = [prompts_each * (cycle + 1) for cycle in range(len(found))]
            axes.plot(numbers, [point[name] for point in found], color=colour, label=run, lw=1.5)
        axes.axvspan(0, warm_up * prompts_each, color="0.9", zorder=0)
        axes.set(title=name, ylim=(0, None), xlabel="prompts")
    panels.flat[0].legend(loc="lower right", fontsize=9)
    figure_style.save(figure, "endurance", folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=CYCLES, help="of twenty prompts each")
    parser.add_argument("--quick", action="store_true", help="four cycles, kept out of the repository")
    options = parser.parse_args()
    cycles, warm_up = (4, 1) if options.quick else (options.cycles, WARM_UP)
    each = len(of_cycle(0))
    (ours, ends), (others, _) = measure(of_cycle, cycles, OURS), measure(of_comfyui, cycles, ALONE)
    found = {
        "prompts": cycles * each, "ended": dict(ends), "not judged": warm_up * each, "cache": "classic",
        "rows": {OURS: judged(ours, each, warm_up), ALONE: judged(others, each, warm_up)},
        "points": {OURS: ours, ALONE: others},
    }  # fmt: skip
    results.write("endurance", found, options.quick)
    draw(found["points"], warm_up, each, results.folder(options.quick))
    grown = [] if options.quick else growing(ours, others, warm_up)  # four cycles still fill what is bounded
    if grown:
        sys.exit(f"What the process holds grows: {', '.join(grown)}.")


if __name__ == "__main__":
    main()
