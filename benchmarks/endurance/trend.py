"""Whether a series grows: its slope by Theil and Sen, with an interval, and what growth it could have shown."""

from dataclasses import dataclass

from scipy.stats import theilslopes

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Trend:
    """Of a measure, per step of its series. slope: the median of all pairs' slopes. low, high: ends of its interval."""

    slope: float
    low: float
    high: float

    @property
    def grows(self) -> bool:
        return self.low > 0

    def times(self, steps: float) -> dict[str, float]:
        """What it comes to over so many steps, as results hold it."""
        return {"value": self.slope * steps, "low": self.low * steps, "high": self.high * steps}


def trend(values: list[float]) -> Trend:
    """Of at least three values that were measured at equal distances."""
    if len(values) < 3:
        raise ValueError(f"{len(values)} values: a trend needs at least 3.")
    slope, _, low, high = theilslopes(values, alpha=CONFIDENCE)
    return Trend(float(slope), float(low), float(high))
