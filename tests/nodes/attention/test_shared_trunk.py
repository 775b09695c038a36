"""Rows that are twins run once before the first changed layer: the same predictions to rounding, with less arithmetic."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import small_networks
from benchmarks.one_step import predict
from benchmarks.tolerance import assert_agree


def erg(node, model, **inputs):
    return node("EntropyGuidanceERG", model=model, **{"temperature": 0.01, **inputs})[0]


def arithmetic(run) -> int:
    """The floating-point operations of matrix products, convolutions and attention."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def small(name: str):
    """A small network's MODEL, its positive condition and a latent."""
    network = small_networks.NETWORKS[name]
    return small_networks.build(name), network.conditions()[0], network.latent(network.most)


LATE_LAYER = {"SD15": 3, "SDXL": 3, "SD3": 3, "Flux": 3, "WAN21_T2V": 1}


@pytest.mark.parametrize("name", LATE_LAYER)
def test_the_same_prompt_on_both_inputs_is_computed_once(node, name):
    model, condition, latent = small(name)

    def measured(**inputs):
        guided = erg(node, model, layers=str(LATE_LAYER[name]), **inputs)
        predict(guided, (condition, condition), latent)  # learns the layers, and tries sharing
        found = []
        cost = arithmetic(lambda: found.extend(predict(guided, (condition, condition), latent)))
        return cost, found

    (shared_cost, shared), (cost, unshared) = measured(), measured(share_trunk=False)
    for a, b in zip(shared, unshared, strict=True):
        assert_agree(a, b)
    assert not torch.equal(*unshared)
    assert shared_cost < 0.85 * cost
