"""The archive that the registry would publish, by comfy-cli's own code: git's files without those of .comfyignore."""

import os
import zipfile
from pathlib import Path

from .environment import DEV, REPOSITORY

ARCHIVE = DEV / "entropy-guidance.zip"


def build(archive: Path) -> None:
    """Writes the archive. Files that git does not track are not in it."""
    from comfy_cli.file_utils import zip_files
    from comfy_cli.registry.config_parser import extract_node_configuration

    before = os.getcwd()
    os.chdir(REPOSITORY)  # comfy-cli zips the folder in which it runs
    try:
        zip_files(archive, extract_node_configuration("pyproject.toml").tool_comfy.includes)
    finally:
        os.chdir(before)


def main() -> None:
    ARCHIVE.parent.mkdir(exist_ok=True)
    build(ARCHIVE)
    with zipfile.ZipFile(ARCHIVE) as file:
        entries = file.infolist()
    for entry in entries:
        print(f"{entry.file_size:>10,}  {entry.filename}")
    unpacked = sum(entry.file_size for entry in entries)
    print(f"{len(entries)} files, {unpacked / 1e6:.1f} MB, packed {ARCHIVE.stat().st_size / 1e6:.1f} MB: {ARCHIVE}")


if __name__ == "__main__":
    main()
