"""The temperature that flattens attention by a wanted share, whatever the size of its logits.

How much a temperature τ changes depends on the logits l: it hardly shows where they are small, and is strong where they are
large. A flatness f asks for the effect instead: the share of the way from attention's own entropy to the highest one,

    H(τ) = H(1) + f · (H(0) − H(1)),    H(τ) the mean entropy of softmax(τ l + b) over the queries

A mask is a bias b of −∞ for keys that are not allowed; without another bias H(0) is log M, M the number of allowed keys.
"""

import math

import torch

# Leave τ within 2 % of the solution for logits of standard deviations from 0.05 to 30, and the share within 0.02 where keys stand
# out from the others by up to 50.
PASSES = 5
BISECTIONS = 14  # leave τ within 2⁻¹⁵
FAR = 1.0  # from what is wanted, in v: the line is not to be trusted there
LONGEST = 4.0  # step in u, after the first
SLOPES = 1 / 3, 30.0  # that two points may have: where rounding is all that they differ by, any would come out
EPSILON = 1e-6  # a share nearer to 0 or 1 is rounding of float32


def entropy_at(logits: torch.Tensor, temperature: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """H(τ) in nats, in 0..log M: [rows, heads, queries, keys] and τ [rows, heads] give [rows, heads].

    bias: what is added to tempered logits, of a shape that expands to theirs; −∞ for keys that are not allowed. A query
    that may attend to nothing counts as one that attends to all alike, at any temperature.
    """
    return _entropy_at(logits, temperature, None if bias is None else _finite(bias))


def temperature_for(
    logits: torch.Tensor, flatness: float, bias: torch.Tensor | None = None, any_bias: bool = False
) -> torch.Tensor:
    """τ in 0..1 for a flatness in 0..1, one for each row and head: [rows, heads, queries, keys] give [rows, heads], float32.

    bias: as for `entropy_at`. any_bias: it may be other than a mask, as positions are. Where attention has no way to go (a
    single key), τ is any number of that range.

    The share of the way, as a function of τ, is nearly a line of slope 1 in the coordinates

        v = logit(share),  u = logit(1 − τ²):    v ≈ u − log( Var(l) / (2 (H(0) − H(1))) )

    which is exact for τ → 0, where H(0) − H(τ) = τ² Var(l) / 2. It is solved by secants from there, for masks. Where a key stands
    out from the others by far more than log M, attention falls on it from uniform at once, near τ = H(0) / (max l − mean l): the
    second point is there where the line leads nowhere. With another bias H(τ) need not even fall monotonically: that is solved
    by bisection, at three times the cost.
    """
    if flatness in (0, 1):
        return torch.full(logits.shape[:2], 1.0 - flatness, device=logits.device)
    solve = _by_bisection if any_bias else _by_secants
    return solve(logits.float(), flatness, None if bias is None else _finite(bias))


def _entropy_at(logits: torch.Tensor, temperature: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """As `entropy_at`, of a bias that is finite."""
    tempered = logits * temperature[..., None, None]
    return _mean_entropy(tempered if bias is None else tempered + bias)


def _by_secants(logits: torch.Tensor, flatness: float, bias: torch.Tensor | None) -> torch.Tensor:
    biased = logits if bias is None else logits + bias
    own = _mean_entropy(biased)
    highest, mean, variance = _without_logits(logits, bias)
    way = highest - own
    way = torch.where(way.abs() < EPSILON, EPSILON, way)
    wanted = math.log(flatness / (1 - flatness))
    u = wanted + (variance / (2 * way)).abs().clamp(EPSILON, 1 / EPSILON).log()
    # A query without any key has lost its logits to the lowest bias, and with it what stands out.
    stands_out = (biased.amax(-1) - mean).clamp(min=0).mean(-1)
    fall = _coordinate(highest / stands_out.clamp(min=EPSILON))
    slope, before = torch.ones_like(u), None
    for _ in range(PASSES):
        share = (_entropy_at(logits, _temperature(u), bias) - own) / way
        error = torch.logit(share, EPSILON) - wanted
        if before is None:
            step = torch.where(error.abs() > FAR, u - fall, error)
        else:
            slope = _slope(u - before[0], error - before[1], slope)
            step = (error / slope).clamp(-LONGEST, LONGEST)
        before = u, error
        u = u - step
    return _temperature(u)


def _by_bisection(logits: torch.Tensor, flatness: float, bias: torch.Tensor | None) -> torch.Tensor:
    """H(τ) is continuous: on its way from H(1) to H(0) it meets every share."""
    low, high = torch.zeros(logits.shape[:2], device=logits.device), torch.ones(logits.shape[:2], device=logits.device)
    highest, own = _entropy_at(logits, low, bias), _entropy_at(logits, high, bias)
    wanted = torch.lerp(own, highest, flatness)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        too_flat = (_entropy_at(logits, middle, bias) - wanted) * (highest - own) > 0
        low, high = torch.where(too_flat, middle, low), torch.where(too_flat, high, middle)
    return (low + high) / 2


def _temperature(u: torch.Tensor) -> torch.Tensor:
    """The inverse of u = logit(1 − τ²)."""
    return torch.sigmoid(-u).sqrt()


def _coordinate(temperature: torch.Tensor) -> torch.Tensor:
    """u of a temperature, as if one of 1 or more were a little less."""
    return -torch.logit(temperature.square(), EPSILON)


def _slope(run: torch.Tensor, rise: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """rise / run within SLOPES; the last slope where the run is too short to tell one."""
    return torch.where(run.abs() > 0.02, rise / run, last).clamp(*SLOPES)


def _mean_entropy(logits: torch.Tensor) -> torch.Tensor:
    """Of softmax(logits), over the queries: [..., queries, keys] give [...]."""
    of_keys: torch.Tensor = torch.special.entr(logits.softmax(-1))
    return of_keys.sum(-1).mean(-1)


def _without_logits(logits: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of τ = 0: H(0), a mean over the queries, [rows, heads] or what expands to that; the mean of each query's logits there; and
    their variance, a mean over the queries again."""
    if bias is None:
        highest = torch.full((1, 1), math.log(logits.shape[-1]), device=logits.device)
        return highest, logits.mean(-1), logits.var(-1, correction=0).mean(-1)
    alike = bias.softmax(-1)
    mean = (alike * logits).sum(-1, keepdim=True)
    return _mean_entropy(bias), mean[..., 0], (alike * (logits - mean).square()).sum(-1).mean(-1)


def _finite(bias: torch.Tensor) -> torch.Tensor:
    """Keys that are not allowed get the lowest finite bias, of which a query without any key makes no NaN."""
    return bias.float().clamp(min=torch.finfo(torch.float32).min)
