"""What ERG finds out once in a sampling and forgets after it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..sampling.condition_names import ConditionNames
from ..sampling.own_branch import OwnBranchOfSampling
from .effect import Effect


@dataclass
class SamplingState:
    """Of one sampling. Without a guider: of one evaluation outside of a sampler."""

    names: ConditionNames = field(default_factory=ConditionNames)
    own: OwnBranchOfSampling | None = None
    effect: Effect = field(default_factory=Effect)
    once: dict[tuple[Callable[..., Any], int], Any] = field(default_factory=dict)

    def find(self, make: Callable[..., Any], subject: object) -> Any:
        """make(subject), made once for a subject."""
        key = make, id(subject)  # networks and their like live as long as the sampling
        if key not in self.once:
            self.once[key] = make(subject)
        return self.once[key]
