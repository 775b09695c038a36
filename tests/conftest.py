"""Property tests are never timed: the machine may be busy. What takes longest begins first."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Files that take minutes: left to the end, one worker would run them while the others wait.
LONG = (
    "server/test_frontend.py", "server/test_server.py", "fuzzing/test_graphs.py", "benchmarks/test_bench.py", "nodes/classifiers/test_hostile_files.py",
    "benchmarks/test_text_to_image.py", "benchmarks/test_papers.py", "server/test_installed.py", "nodes/test_contract.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """--no-loadscope-reorder hands out files in this order; a sort keeps the order within each."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONG))
