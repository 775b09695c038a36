"""Runs the tests of classifier files with transformers 4, which ComfyUI takes as well: `make test-transformers-4`.

Options go to pytest, among them other tests: `ARGS="tests/nodes"`.
"""

import os
import subprocess
import sys

from .older_packages import path_with
from .setup import TOOLS

REQUIREMENTS = TOOLS / "transformers-4-requirements.txt"
TESTS = ("tests/nodes/classifiers", "tests/nodes/calibration")


def main() -> None:
    options = sys.argv[1:] or TESTS
    environment = os.environ | {"PYTHONPATH": path_with(REQUIREMENTS)}
    sys.exit(subprocess.run([sys.executable, "-m", "tools.test", *options], env=environment).returncode)


if __name__ == "__main__":
    main()
