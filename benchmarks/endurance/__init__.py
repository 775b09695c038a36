"""Whether a server that runs for long grows: its memory, tensors, files and threads over a thousand prompts."""

import sys

from tools.environment import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "tests" / "support"))  # graphs and client, as the tests import them
