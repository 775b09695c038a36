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
from pathlib import Path

from hostile_files import cases, good_files

from benchmarks.in_process import load_nodes, pack_module, run_node  # before hostile_files, whose torch it sets

MEMORY = 2**30  # bytes of addresses, more than what the process has before the first file
INDUCTOR = "torchinductor_root"
SECONDS = 20  # after which the process ends, and says where
NODES = {"adm": "EntropyGuidanceLoadADM", "dit": "EntropyGuidanceLoadDiT"}


def main(root: Path) -> None:
    import faulthandler

    import folder_paths
    import torch

    logging.disable(logging.CRITICAL)
    os.environ["TRANSFORMERS_VERBOSITY"] = "critical"
    models, canary = root / "models", root / "canary"
    load_nodes()
    for name in ("classifiers", "diffusion_models"):
        folder_paths.add_model_folder_path(name, str(models))
    # What is imported and kept for good files, which come first, is not the others'.
    first, others = list(good_files()), list(cases())
    for number, (name, kind, write) in enumerate([*first, *others]):
        if number == len(first):
            _limit_memory()
        folder = models / str(number)
        folder.mkdir(parents=True)
        file = f"{number}/{write(folder, canary)}"
        before, start = _peak(), time.perf_counter()
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        with torch.inference_mode():
            outcome = _try(kind, models, file)
        faulthandler.cancel_dump_traceback_later()
        entries = {"name": name, "seconds": time.perf_counter() - start, "bytes": _peak() - before, **outcome}
        print(json.dumps(entries | {"canary": canary.exists()}), flush=True)
        shutil.rmtree(folder)
    kept = (models, root / "scratch", root / "scratch" / INDUCTOR)
    left = [str(path.relative_to(root)) for path in root.rglob("*") if path not in kept]
    print(json.dumps({"name": "left", "paths": left}))


def _try(kind: str, models: Path, file: str) -> dict:
    """What reading a file comes to: loaded, or an error and its message."""
    if kind == "picture":
        problem = pack_module("nodes.calibration.pictures").problem_of(models / file)
        return {"loaded": not problem, "error": "ValueError", "message": problem}
    input_name = "model_name" if kind in NODES else "classifier_name"
    try:
        run_node(NODES.get(kind, "EntropyGuidanceLoadClassifier"), **{input_name: file})
    except BaseException as error:
        return {"loaded": False, "error": type(error).__name__, "message": str(error)}
    return {"loaded": True}


def _limit_memory() -> None:
    status = Path("/proc/self/status").read_text()
    used = int(status.split("VmSize:")[1].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))


def _peak() -> int:
    """Bytes of memory that the process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]))
