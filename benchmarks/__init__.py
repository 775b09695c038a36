"""Measurements on a real ComfyUI inside this process; `make bench` runs them all."""
