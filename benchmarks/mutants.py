"""Whether the tests of `guidance_core` notice a change of its code: mutmut makes changes, one at a time. `make mutants`.

With patterns of names, such as `make mutants ARGS="guidance_core.sampling_steps.*"`, those files alone are changed, and the rows
of others stay as they were. mutmut keeps what it has found in `mutants/`, and goes on from there.
"""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

from tools.environment import REPOSITORY

from . import results

MUTMUT = [sys.executable, "-m", "mutmut"]
LINE = re.compile(r"\s*(?P<name>(?P<module>guidance_core\.\w+)\.\S+): (?P<status>.+)")


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process of several threads cannot be forked safely
    kept = results.read("mutants")["rows"] if sys.argv[1:] else {}
    subprocess.run([*MUTMUT, "run", *sys.argv[1:]], cwd=REPOSITORY, check=True)
    found = rows(_said("results", "--all", "true"), lambda name: changed(_said("show", name)))
    # What makes all rows, where this has made some.
    results.write("mutants", {"command": "python -m benchmarks.mutants", "rows": kept | found})


def _said(*command: str) -> str:
    return subprocess.run([*MUTMUT, *command], cwd=REPOSITORY, check=True, capture_output=True).stdout.decode()


def changed(difference: str) -> str:
    """What a change does, of a unified difference: the lines that go, and those that come."""
    lines = difference.splitlines()
    parts = [[line[1:].strip() for line in lines if re.match(rf"\{sign}(?!\{sign})", line)] for sign in "-+"]
    return " → ".join(" ".join(part) for part in parts)


def rows(found: str, what: Callable[[str], str]) -> dict[str, dict]:
    """For each file whose changes were tried how many there were, and those that no test noticed: `what` each name does."""
    lines = [line for line in map(LINE.match, found.splitlines()) if line]
    tried = [line for line in lines if line["status"] != "not checked"]
    counts = Counter(line["module"] for line in tried)
    unnoticed = [line for line in tried if line["status"] not in ("killed", "timeout")]
    return {
        module: {
            "changes": count,
            "unnoticed": {line["name"]: what(line["name"]) for line in unnoticed if line["module"] == module},
        }
        for module, count in sorted(counts.items())
    }


if __name__ == "__main__":
    main()
