"""Has the pack read every file of hostile_files.py in a real ComfyUI, with little memory, and says what came of each.

python try_hostile_files.py FOLDER: prints a JSON object for each file. FOLDER: an empty one, below which files are written.
"""

import json
import logging
import os
import resource
import shutil
import sys
import time
import traceback
from pathlib import Path

from hostile_files import cases, good_files
from network import no_network

from benchmarks.in_process import load_nodes, pack_module, run_node  # before hostile_files, whose torch it sets

MEMORY = 2**30  # bytes of addresses, more than what the process has before the first file
INDUCTOR = "torchinductor_root"
SECONDS = 300  # by the clock, after which the process ends, and says where
NODES = {"adm": "EntropyGuidanceLoadADM", "dit": "EntropyGuidanceLoadDiT"}


def main(root: Path) -> None:
    import folder_paths

    logging.disable(logging.CRITICAL)
    os.environ["TRANSFORMERS_VERBOSITY"] = "critical"
    models, canary = root / "models", root / "canary"
    load_nodes()
    for name in ("classifiers", "diffusion_models"):
        folder_paths.add_model_folder_path(name, str(models))
    with no_network() as asked:
        _try_all(models, canary)
    print(json.dumps({"name": "asked", "asked": asked}))
    kept = (models, root / "scratch", root / "scratch" / INDUCTOR)
    left = [str(path.relative_to(root)) for path in root.rglob("*") if path not in kept]
    print(json.dumps({"name": "left", "paths": left}))


def _try_all(models: Path, canary: Path) -> None:
    """Prints what comes of each file. Those that load come first, so that what is imported and kept for them is not the others'."""
    import faulthandler

    import torch

    first, others = list(good_files()), list(cases())
    for number, (name, kind, write) in enumerate([*first, *others]):
        if number == len(first):
            _limit_memory()
        folder = models / str(number)
        folder.mkdir(parents=True)
        file = f"{number}/{write(folder, canary)}"
        there = _written(folder)
        _forget_peak()
        before, start = _memory("VmRSS"), time.process_time()
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        with torch.inference_mode():
            outcome = _try(kind, models, file)
        faulthandler.cancel_dump_traceback_later()
        entries = {
            "name": name,
            "file": file,
            "seconds": time.process_time() - start,
            "bytes": _memory("VmHWM") - before,
            **outcome,
        }
        more = sorted(path for path, when in _written(folder).items() if there.get(path) != when)
        print(json.dumps(entries | {"canary": canary.exists(), "written": more}), flush=True)
        shutil.rmtree(folder)


def _written(folder: Path) -> dict[str, int]:
    """When each file below a folder was last written, in ns."""
    return {str(path.relative_to(folder)): path.lstat().st_mtime_ns for path in folder.rglob("*")}


def _try(kind: str, models: Path, file: str) -> dict:
    """What reading a file comes to: loaded, or an error and its message."""
    if kind == "picture":
        problem = pack_module("nodes.calibration.pictures").problem_of(models / file)
        return {"loaded": not problem, "error": "ValueError", "message": problem}
    input_name = "model_name" if kind in NODES else "classifier_name"
    try:
        run_node(NODES.get(kind, "EntropyGuidanceLoadClassifier"), **{input_name: file})
    except BaseException as error:
        words = f"{error}\n{''.join(traceback.format_exception(error))}"
        printable = pack_module("nodes.common.printable").printable(words) == words
        return {"loaded": False, "error": type(error).__name__, "message": str(error), "printable": printable}
    return {"loaded": True}


def _limit_memory() -> None:
    most = _memory("VmSize") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _forget_peak() -> None:
    """From here on VmHWM is the most memory that the process has had since, rather than ever."""
    Path("/proc/self/clear_refs").write_text("5")


def _memory(entry: str) -> int:
    """Bytes that /proc/self/status has under VmSize (addresses), VmRSS (memory) or VmHWM (memory at most)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{entry}:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]))
