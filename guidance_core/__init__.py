"""Guidance methods in pure torch. Nothing in here knows of ComfyUI; every file is named after its method."""
