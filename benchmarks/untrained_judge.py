"""A judge that was trained on nothing: density and coverage in the features of a network with random weights.

The other judge has only ever seen clean scenes, so that what it makes of blots is anyone's guess. Features of an untrained VGG-16
depend on no training set, for which reason https://arxiv.org/abs/2002.09797 advises them where pictures are unlike photographs.
Blur and specks take more from density and coverage in them than in the trained judge's.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import vgg16

FEATURES = 64
SEED = 0


@cache
def _network() -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return vgg16(weights=None, num_classes=FEATURES).eval().requires_grad_(False)


def features(pictures: Tensor) -> Tensor:
    """[B, FEATURES] of pictures [B, 3, H, W] in 0..1, which are halved."""
    return _network()(2 * F.interpolate(pictures.float(), scale_factor=0.5, mode="area") - 1)
