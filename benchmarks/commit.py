"""The state of the code that results are of."""

import subprocess

from tools.environment import REPOSITORY


def commit() -> str:
    """The short name of this repository's commit, with `-dirty` where the code is another one than its."""
    name = _git("rev-parse", "--short", "HEAD").stdout.decode().strip()
    return f"{name}-dirty" if _git("diff", "HEAD", "--name-only", "--", "*.py").stdout else name


def _git(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(["git", *command], cwd=REPOSITORY, check=True, capture_output=True)
