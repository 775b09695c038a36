"""Which steps are guided where guidance leaves some out, and how much more each of those gets for it.

Of every n steps in a row the one in the middle is guided, for all of them: where guidance at a noise level σ moves the prediction
in proportion to u(σ), it moves it f times as far there, with

    f = Σ u(σ_i) / u(σ_middle),    over the n steps i.

So a sampling is moved in proportion to Σ u in all, whatever n is and however many steps there are, also where it is cut into
several samplings. In the middle, since there is nothing to be seen yet in the first step of all, where u is largest.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from .sampling_steps import step_taken

LEAST_SHARE = 1e-12  # of the largest u: less moves nothing, and f would be beyond single precision


def guided_steps(
    sigmas: Sequence[float], every: int, held: Callable[[float], bool], share: Callable[[float], float]
) -> dict[int, float]:
    """f of each step that is guided, by its number from 0.

    sigmas: of the schedule, one more than there are steps. every: n, 1 or more; the last of the steps may be fewer than n. held:
    whether a step that begins at a noise level may be guided. share: u(σ), 0 or more.

    Steps that begin at the same noise level, which `step_at` does not tell apart, are guided together; one where u is 0 is not.
    """
    times = Counter(step_taken(sigma, sigmas) for sigma in sigmas[:-1] if held(sigma))
    shares = {step: times[step] * share(sigmas[step]) for step in sorted(times)}
    least = LEAST_SHARE * max(shares.values(), default=0.0)
    moved = [step for step in shares if shares[step] > least]
    blocks = [moved[first : first + every] for first in range(0, len(moved), every)]
    by_middle = {block[len(block) // 2]: block for block in blocks}
    return {middle: sum(shares[step] for step in block) / shares[middle] for middle, block in by_middle.items()}
