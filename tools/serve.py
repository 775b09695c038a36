"""Starts ComfyUI with this pack for a browser; Ctrl-C stops it. Options go to ComfyUI: `make serve ARGS=--listen`."""

import argparse
import subprocess
import sys

from .comfyui_server import free_port
from .environment import server_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, add_help=False)
    parser.add_argument("--port", type=int, default=free_port())
    options, rest = parser.parse_known_args()
    print(f"ComfyUI will soon answer at http://127.0.0.1:{options.port}; the example workflows are in its Templates.")
    try:
        sys.exit(subprocess.run(server_command(options.port, *rest)).returncode)
    except KeyboardInterrupt:
        print("Stopped.")


if __name__ == "__main__":
    main()
