"""The papers' own experiment, for whoever has the published weights: `python -m benchmarks.papers --help`."""

import os

import torch

if torch.cuda.is_available() and "LOCAL_RANK" in os.environ:  # now, as ComfyUI takes the GPU that is current
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
