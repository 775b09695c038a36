"""Measurements on a real ComfyUI inside this process, which is made ready before a module here imports from it."""

from . import in_process as in_process
