"""Density and coverage against what can be counted by hand and what arXiv 2002.09797 expects of equal distributions."""

from math import prod

import pytest
import torch

from benchmarks.density_coverage import NEIGHBOURS, coverage, density, within_balls


@pytest.mark.parametrize(
    ("drawn", "dense", "covered"),
    [([5.0], 2.0, 0.5), ([5.0, 31.0], 2.0, 1.0), ([500.0], 0.0, 0.0), ([500.0, 31.0], 1.0, 0.5)],
)
def test_points_on_a_line_are_counted(drawn, dense, covered):
    real = torch.tensor([0.0, 10.0, 30.0, 60.0])  # whose nearest neighbours are 10, 10, 20 and 30 away
    within = within_balls(real[:, None], torch.tensor(drawn)[:, None], neighbours=1)
    assert density(within, neighbours=1) == dense
    assert coverage(within) == covered


def test_equal_distributions_have_the_papers_expected_values():
    count, repeats = 300, 20
    samples = torch.randn(repeats, 2, count, 8, generator=torch.Generator().manual_seed(0))
    within = [within_balls(real, drawn) for real, drawn in samples]
    missed = prod((count - i) / (2 * count - i) for i in range(1, NEIGHBOURS + 1))
    assert sum(map(coverage, within)) / repeats == pytest.approx(1 - missed, abs=0.01)
    assert sum(map(density, within)) / repeats == pytest.approx(1, abs=0.03)
