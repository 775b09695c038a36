"""Starts ComfyUI with this pack for a browser; Ctrl-C stops it. Options go to ComfyUI: `make serve ARGS=--listen`."""

import subprocess
import sys

from .comfyui_server import free_port
from .environment import server_command


def main() -> None:
    port = free_port()
    print(f"ComfyUI will answer at http://127.0.0.1:{port} - the example workflows are in its Templates browser.")
    try:
        sys.exit(subprocess.run(server_command(port, *sys.argv[1:])).returncode)
    except KeyboardInterrupt:
        print("Stopped.")


if __name__ == "__main__":
    main()
