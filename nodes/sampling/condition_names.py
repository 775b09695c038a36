"""Whose prediction an evaluation is: the guider's own name of each condition ('positive', 'negative', ...).

Neither its number in `cond_or_uncond` nor its place tells: nodes evaluate single conditions, copies of them and
conditions of their own, and guiders number theirs as they like. Each entry of a condition has a uuid from the moment at which
the guider got it; entries that ComfyUI adds behind them in the course of a sampling carry those of other conditions.
"""

from comfy.samplers import CFGGuider

POSITIVE, NEGATIVE = "positive", "negative"
# In transformer options: the names of an evaluation's conditions, by their number in `cond_or_uncond`.
CONDITION_NAMES = "entropy_guidance_condition_names"


class ConditionNames:
    """Of one sampling. Without a guider, of an evaluation outside of a sampler, which has the positive condition first."""

    def __init__(self, guider: CFGGuider | None = None):
        """guider: as it is when a sampling begins, before ComfyUI adds entries to its conditions."""
        self._guider = guider
        own = getattr(guider, "conds", {})
        self.of_guider = frozenset(own) if guider else frozenset({POSITIVE, NEGATIVE})
        entries = ((name, entry) for name, of_name in own.items() for entry in of_name or ())
        self._of_uuid = {entry["uuid"]: name for name, entry in entries if "uuid" in entry}

    def of(self, conds: list[list[dict] | None]) -> tuple[str | None, ...]:
        """The name of each condition; None for what is not evaluated and for a condition that is not the guider's."""
        if self._guider is None:
            names = (POSITIVE, NEGATIVE, *map(str, range(2, len(conds))))
            return tuple(name if entries else None for name, entries in zip(names, conds))
        return tuple(self._name(entries) if entries else None for entries in conds)

    def _name(self, entries: list[dict]) -> str | None:
        # A guider may hold one condition under two names: then it is the list itself that tells.
        for name, known in self._guider.conds.items():
            if known is entries:
                return name
        return self._of_uuid.get(entries[0].get("uuid"))


def with_condition_names(model_options: dict, names: tuple[str | None, ...]) -> dict:
    """Model options whose transformer options name the conditions of an evaluation."""
    options = {**model_options.get("transformer_options", {}), CONDITION_NAMES: names}
    return {**model_options, "transformer_options": options}


def is_positive(name: str) -> bool:
    """Whether a condition is one to lead to. Other packs' guiders put a word before it, such as 'xt_positive'."""
    return name.endswith(POSITIVE)
