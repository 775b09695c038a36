"""Runs graphs at random, finds what neither draws a finite picture nor says clearly why not: `make fuzz`.

Graphs are numbered, and a number is always the same graph. What came of each is kept in `.dev/fuzz`; a later run of the same
commit goes on from there. A process that hangs or dies is a failure of its graph. `--graph N` runs one again, `--anew` forgets
what was kept.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.environment import DEV, REPOSITORY

from ..commit import commit

FOLDER = DEV / "fuzz"
COMMIT = "ENTROPY_GUIDANCE_FUZZING_COMMIT"
SECONDS = 300  # for one graph; most take a second
CHECKED_AGAIN = 10  # one graph of so many is drawn anew and compared
LAST_WORDS = 3000  # letters
STARTED = FOLDER / "started"  # there once a process has come to its first graph


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=2000)
    parser.add_argument("--graph", type=int, metavar="N", help="run this one alone and print it")
    parser.add_argument("--anew", action="store_true", help="forget what earlier runs kept")
    parser.add_argument(
        "--quick", type=int, metavar="N", help="N quick graphs, printed, nothing kept: those of `make test`"
    )
    parser.add_argument("--work", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(range(*options.work), keep)
    if options.graph is not None:
        return work([options.graph], show)
    if options.quick:
        return work(range(options.quick), show, quick=True)
    if options.anew or "-dirty" in kept().stem:  # changes that are in no commit may be others than the last time
        kept().unlink(missing_ok=True)
    while (done := len(outcomes())) < options.graphs:
        _have_worked(done, options.graphs)
    report(outcomes()[: options.graphs])


def kept() -> Path:
    """Where what came of graphs is kept: of the commit at which the run began, which its further processes are told."""
    return FOLDER / f"outcomes of {os.environ.get(COMMIT) or os.environ.setdefault(COMMIT, commit())}.jsonl"


def outcomes() -> list[dict]:
    return [json.loads(line) for line in kept().read_text(encoding="utf-8").splitlines()] if kept().exists() else []


def _have_worked(first: int, end: int) -> None:
    """In a process of its own; where it ends early, the graph that it was at has failed."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    STARTED.unlink(missing_ok=True)
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzzing", "--work", str(first), str(end)],
        cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, errors="replace",
    )  # fmt: skip
    if process.returncode and not STARTED.exists():
        sys.exit(f"no graph could be run: {process.stderr[-LAST_WORDS:]}")
    if process.returncode:
        words = f"the process ended with {process.returncode}: {process.stderr[-LAST_WORDS:]}"
        if len(outcomes()) == first:
            print(words, flush=True)
        keep({"number": len(outcomes()), "kind": "failed", "why": words})


def keep(outcome: dict) -> None:
    with kept().open("a", encoding="utf-8") as file:
        file.write(json.dumps(outcome) + "\n")


def show(outcome: dict) -> None:
    print(json.dumps(outcome), flush=True)


def work(numbers: Iterable[int], tell: Callable[[dict], None], quick: bool = False) -> None:
    """Runs graphs in this process. quick: those that take little time, and the latent of a plain sampling not after each."""
    import faulthandler
    import logging

    from .. import in_process

    in_process.load_nodes()
    in_process.quiet()
    logging.disable(logging.CRITICAL)
    from .session import Session
    from .wiring import graph_of, own_nodes

    with TemporaryDirectory() as folder:
        session = Session(Path(folder))
        if tell is keep:
            STARTED.touch()
        for number in numbers:
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            graph, again = graph_of(number, quick), not number % CHECKED_AGAIN
            outcome = session.run(graph, check_latent=again or not quick)
            if again:
                outcome = session.drawn_alike(graph, outcome)
            faulthandler.cancel_dump_traceback_later()
            own = own_nodes(graph)
            found = {"number": number, "kind": outcome.kind, "why": outcome.why, "nodes": own_kinds(own)}
            tell(found | ({"graph": own} if outcome.kind == "failed" or tell is show and not quick else {}))


def own_kinds(own: dict) -> list[str]:
    return sorted({node["class_type"] for node in own.values()})


def report(found: list[dict]) -> None:
    """Into docs/results/fuzzing.json."""
    from .. import results
    from .outcome import FAILED, FINISHED, REFUSED, STOPPED

    counts = Counter(one["kind"] for one in found)
    nodes = Counter(node for one in found for node in one.get("nodes", ()) if node.startswith("EntropyGuidance"))
    results.write(
        "fuzzing",
        {
            "hypothesis": version("hypothesis"),
            "graphs": len(found),
            "drawn again without a cache": len(range(0, len(found), CHECKED_AGAIN)),
            "rows": {kind: counts[kind] for kind in (FINISHED, STOPPED, REFUSED, FAILED)},
            "failures": [{"graph": one["number"], "why": one["why"]} for one in found if one["kind"] == FAILED],
            "graphs with": dict(sorted(nodes.items())),
        },
    )
    print(json.dumps(counts, indent=1))
    if counts[FAILED]:
        sys.exit(f"{counts[FAILED]} graphs failed; docs/results/fuzzing.json names them.")


if __name__ == "__main__":
    main()
