"""How much of the pack its tests run, by folder: `make coverage`.

With folders of tests, such as `make coverage ARGS="tests/guidance_core tests/nodes/sampling"`, those alone run, and the folders of
the pack of the same name are measured; the rows of other folders stay as they were. Some minutes more than the tests take.
"""

import json
import subprocess
import sys
from pathlib import PurePosixPath

from tools.environment import DEV, REPOSITORY

from . import results

FOUND = DEV / "coverage.json"
ALL = "tests"
OF_RESULTS = (
    "tests/benchmarks/test_coverage_and_mutants.py::test_each_folder_of_the_pack_has_a_figure"  # of this command's own
)


def main() -> None:
    tests = sys.argv[1:] or [ALL]
    report = ["--cov", "--cov-config=pyproject.toml", "--cov-report=", f"--cov-report=json:{FOUND}"]
    command = [sys.executable, "-m", "tools.test", *tests, *report, f"--deselect={OF_RESULTS}"]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    counts = of_folders(json.loads(FOUND.read_text(encoding="utf-8"))["files"])
    rows = {} if tests == [ALL] else results.read("coverage")["rows"]
    for folder, count in counts.items():
        if tests == [ALL] or f"{ALL}/{folder}" in tests:
            rows[folder] = {"tests": ALL if tests == [ALL] else f"{ALL}/{folder}", **count}
    results.write("coverage", {"rows": rows})


def of_folders(files: dict[str, dict]) -> dict[str, dict[str, int]]:
    """Lines and branches that ran, and all of them, of the files of each folder. files: as coverage's JSON has them."""
    counts: dict[str, dict[str, int]] = {}
    for name, found in sorted(files.items()):
        summary = found["summary"]
        count = counts.setdefault(PurePosixPath(name).parent.as_posix(), dict.fromkeys(COUNTED, 0))
        for ours, theirs in COUNTED.items():
            count[ours] += summary[theirs]
    return counts


COUNTED = {
    "lines": "num_statements", "lines that ran": "covered_lines",
    "branches": "num_branches", "branches that ran": "covered_branches",
}  # fmt: skip

if __name__ == "__main__":
    main()
