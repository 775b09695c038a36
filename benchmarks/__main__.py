"""`make bench`: everything that is measured in docs/evidence.md, one after the other; most of a day on two cores.

First costs, which are printed; then what draws pictures, which is kept and goes on where it was interrupted; then the pages'
numbers and the report. `--quick` tries out in minutes what has a quick form, and writes nothing into docs.
"""

import argparse
import subprocess
import sys

import torch

from tools.environment import REPOSITORY

from . import evaluations, guidance_cost, in_process, prompt_consistency, step_cost

QUICK = ("flatness", "text_to_image")
LONG = (
    "class_gradients", "class_conditional", "text_to_image", "train_unet_twin", "flatness", "classifier_guidance", "calibration",
)  # fmt: skip
PAGES = ("numbers", "report")


def run(names: tuple[str, ...], *arguments: str) -> None:
    """Each in a process of its own: they set up ComfyUI differently."""
    for name in names:
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], cwd=REPOSITORY, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    if parser.parse_args().quick:
        run(QUICK, "--quick")
        return
    in_process.load_nodes()
    with torch.inference_mode():
        evaluations.measure()
        step_cost.measure()
        guidance_cost.measure()
        prompt_consistency.measure()
    run(LONG)
    run(PAGES)


if __name__ == "__main__":
    main()
