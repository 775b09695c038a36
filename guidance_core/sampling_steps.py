"""Steps of a sampling: which one an evaluation of the network belongs to, where a sampler evaluates between two of them."""

from collections.abc import Sequence

CLOSE = 1e-6  # relative difference of sigmas that are the same but for their rounding


def step_at(sigma: float, sigmas: Sequence[float]) -> int:
    """The number, from 0, of the last step of a schedule that is reached at a sigma.

    sigmas: those of the schedule, falling, or rising from image to noise. What lies between two steps belongs to the first.
    """
    if sigmas[0] < sigmas[-1]:
        reached = sum(start <= sigma * (1 + CLOSE) for start in sigmas)
    else:
        reached = sum(start >= sigma * (1 - CLOSE) for start in sigmas)
    return max(reached - 1, 0)


def step_taken(sigma: float, sigmas: Sequence[float]) -> int:
    """The same of the steps that a sampler takes, one fewer than `sigmas`: what it evaluates at their end is of the last one."""
    return min(step_at(sigma, sigmas), max(len(sigmas) - 2, 0))


def spread_steps(steps: int, most: int) -> list[int]:
    """At most so many of the steps 0..steps − 1, evenly spread, the first and the last among them."""
    if steps <= most:
        return list(range(steps))
    return [round(i * (steps - 1) / (most - 1)) for i in range(most)]
