"""Arithmetic: what the papers' experiment costs with the published weights, from the shapes alone."""

import torch
import torchvision
from torch._subclasses import FakeTensorMode

from ..arithmetic import flops
from ..in_process import load_nodes, pack_module

# 128x128_diffusion.pt and the classifier of the paper's table of 50,000 pictures.
ADM_128 = {
    "width": 256, "depth": 2, "multipliers": (1, 1, 2, 3, 4), "attention_levels": (2, 3, 4), "classes": 1000,
    "head_channels": None, "heads": 4,
}  # fmt: skip
SIZE, CLASSIFIER, CLASSIFIER_SIZE = 128, "resnet101", 224
THROUGHPUT = 200e12  # of an H100 in half precision: a fifth of what its data sheet gives (989e12), an assumption


def estimate(samples: int, steps: int) -> str:
    """FLOPs (a multiplication and an addition are two) and hours of one method, in words."""
    load_nodes()
    evaluation, gradient = _evaluation(), _gradient()
    hours = {
        name: samples * steps * each / THROUGHPUT / 3600
        for name, each in (("no guidance", evaluation), ("guided", evaluation + gradient))
    }
    return (
        f"Model: {evaluation / 1e9:.0f} GFLOP an evaluation of one picture of {SIZE} × {SIZE}; {CLASSIFIER}: "
        f"{gradient / 1e9:.0f} GFLOP a gradient at {CLASSIFIER_SIZE} × {CLASSIFIER_SIZE}.\n"
        f"{samples:,} pictures of {steps} steps: {samples * steps * evaluation / 1e18:.2f} EFLOP without guidance, "
        f"{samples * steps * (evaluation + gradient) / 1e18:.2f} EFLOP with it.\n"
        f"At {THROUGHPUT / 1e12:.0f} TFLOP/s: {hours['no guidance']:.1f} and {hours['guided']:.1f} hours a method on one GPU, "
        f"{hours['guided'] / 8:.1f} on eight."
    )


@torch.inference_mode(False)
def _evaluation() -> int:
    adm = pack_module("nodes.class_conditional.adm_unet")
    with FakeTensorMode():  # shapes alone
        network = adm.AdmUNet(adm.AdmShape(**ADM_128))
        picture, time, label = torch.empty(1, 3, SIZE, SIZE), torch.empty(1), torch.empty(1, 1, 4 * ADM_128["width"])
        return flops(lambda: network(picture, time, label))


@torch.inference_mode(False)
def _gradient() -> int:
    with FakeTensorMode():
        network = torchvision.models.get_model(CLASSIFIER, weights=None).eval().requires_grad_(False)
        pictures = torch.empty(1, 3, CLASSIFIER_SIZE, CLASSIFIER_SIZE, requires_grad=True)
        return flops(lambda: network(pictures).sum().backward())
