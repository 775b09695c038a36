"""`make bench`: every benchmark in order, the short ones first, then the numbers of the pages and the report.

Each is a command of its own, `python -m benchmarks.NAME`. After an interrupted run those that were finished are left out, and
the long ones go on in their middle. What is of a training's weights is left out where these are not here. --quick: those that have a --quick, in some minutes, into `.dev/benchmarks/quick`.
"""

import argparse
import subprocess
import sys

from tools.environment import DEV, REPOSITORY

QUICK = (
    "evaluations",
    "guidance_cost",
    "step_cost",
    "class_conditional",
    "flatness",
    "attention_entropy",
    "encoder_entropy",
    "initial_velocity",
    "class_calibration",
    "calibration_inputs",
    "judges",
    "class_sensitivity",
    "sensitivity",
    "text_to_image",
)
ALL = (
    "evaluations", "guidance_cost", "attention_entropy", "encoder_entropy", "initial_velocity", "class_gradients", "class_calibration", "calibration_inputs", "judges", "step_cost",
    "train_unet_twin", "flatness",
    "classifier_guidance", "calibration", "gradient_norm", "class_conditional", "class_sensitivity", "sensitivity", "gentle_cfg", "text_to_image",
)  # fmt: skip
# What is measured of weights that are not in the repository, and after how many steps of a training these are.
OF_A_TRAINING = {"gentle_cfg": 2000}
FINISHED = DEV / "benchmarks" / "finished.txt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=ALL, help="these, whether or not they were finished")
    options = parser.parse_args()
    for name in options.only or (QUICK if options.quick else unfinished()):
        run(name, *["--quick"] * options.quick)
        if not options.quick and not options.only:
            FINISHED.parent.mkdir(parents=True, exist_ok=True)
            FINISHED.write_text(f"{FINISHED.read_text() if FINISHED.exists() else ''}{name}\n")
    if not options.quick:
        run("numbers")
        run("report")
        if not options.only:
            FINISHED.unlink()


def unfinished() -> list[str]:
    finished = FINISHED.read_text().split() if FINISHED.exists() else ()
    return [name for name in ALL if name not in finished and _can_run(name)]


def _can_run(name: str) -> bool:
    steps = OF_A_TRAINING.get(name)
    if steps is None or (DEV / "training" / f"step-{steps}").exists():
        return True
    print(f"{name} is left out: `python -m demo.train_diffusion --until {steps}` makes what it measures.")
    return False


def run(name: str, *options: str) -> None:
    print(f"\n== {name}", flush=True)
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options], cwd=REPOSITORY)
    if done.returncode:
        sys.exit(f"benchmarks.{name} stopped with {done.returncode}; a full run goes on from there.")


if __name__ == "__main__":
    main()
