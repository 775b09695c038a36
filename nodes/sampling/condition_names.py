"""Whose prediction an evaluation is: the guider's own name of each condition ('positive', 'negative', ...).

Neither its number in `cond_or_uncond` nor its place tells: nodes evaluate single conditions, copies of them and
conditions of their own, and guiders number theirs as they like. Each entry of a condition has a uuid from the moment at which
the guider got it; entries that ComfyUI adds behind them in the course of a sampling carry those of other conditions.
"""

from collections.abc import Callable, Sequence
from typing import Any

from comfy.samplers import CFGGuider

# The conditions of an evaluation, each with its entries; None for one that is left out.
Conditions = Sequence[list[dict[str, Any]] | None]

POSITIVE, NEGATIVE = "positive", "negative"
# How guiders call the condition to lead away from: a guider with the first kind of name has others of the next kinds, too.
NAMES_OF_WEAK: tuple[Callable[[str], bool], ...] = (
    lambda name: name == "weak",  # the ERG Guider's
    lambda name: name.startswith("empty"),  # the empty prompt of PerpNegGuider
    lambda name: name.endswith(NEGATIVE),  # 'xt_negative' in other packs
)
# In transformer options: the names of an evaluation's conditions, by their number in `cond_or_uncond`.
CONDITION_NAMES = "entropy_guidance_condition_names"
# And for each of them its own number, or that of the condition that it is a copy of.
ORIGINALS = "entropy_guidance_originals"
# And for the uuid of each copied entry that of its original.
UUIDS_OF_ORIGINALS = "entropy_guidance_uuids_of_originals"
# In the entries of a condition that is a copy of another one, for a branch of its own: that branch, and the entry's uuid.
BRANCH, COPY_OF = "entropy_guidance_branch", "entropy_guidance_copy_of"


class ConditionNames:
    """Of one sampling. Without a guider, of an evaluation outside of a sampler, which has the positive condition first."""

    def __init__(self, guider: CFGGuider | None = None) -> None:
        """guider: as it is when a sampling begins, before ComfyUI adds entries to its conditions."""
        self._guider = guider
        own = getattr(guider, "conds", {})
        self.of_guider = frozenset(own) if guider else frozenset({POSITIVE, NEGATIVE})
        entries = ((name, entry) for name, of_name in own.items() for entry in of_name or ())
        self._of_uuid = {entry["uuid"]: name for name, entry in entries if "uuid" in entry}

    def of(self, conds: Conditions) -> tuple[str | None, ...]:
        """The name of each condition; None for what is not evaluated and for a condition that is not the guider's."""
        guider = self._guider
        if guider is None:
            names = (POSITIVE, NEGATIVE, *map(str, range(2, len(conds))))
            return tuple(name if entries else None for name, entries in zip(names, conds))
        return tuple(self._name(guider, entries) if entries else None for entries in conds)

    def of_branches(self, conds: Conditions) -> tuple[str | None, ...]:
        """The same, but a copy of a condition has the name of the branch that it was made for."""
        return tuple(_branch(entries) or name for entries, name in zip(conds, self.of(conds)))

    def tell(self, conds: Conditions, model_options: dict[str, Any]) -> dict[str, Any]:
        """Model options whose transformer options name the conditions of an evaluation."""
        names, branches = self.of(conds), tuple(map(_branch, conds))
        originals = (names.index(name) if branches[i] else i for i, name in enumerate(names))
        copies = (entry for entries in conds for entry in entries or () if COPY_OF in entry)
        told = {
            CONDITION_NAMES: tuple(branch or name for branch, name in zip(branches, names)),
            ORIGINALS: tuple(originals),
            UUIDS_OF_ORIGINALS: {entry["uuid"]: entry[COPY_OF] for entry in copies},
        }
        return {**model_options, "transformer_options": {**model_options.get("transformer_options", {}), **told}}

    def _name(self, guider: CFGGuider, entries: list[dict[str, Any]]) -> str | None:
        # A guider may hold one condition under two names: then it is the list itself that tells.
        for name, known in guider.conds.items():
            if known is entries:
                return name
        return self._of_uuid.get(entries[0].get(COPY_OF, entries[0].get("uuid")))


def _branch(entries: list[dict[str, Any]] | None) -> str | None:
    """The branch that a condition is a copy for, if it is one."""
    return entries[0].get(BRANCH) if entries else None


def is_positive(name: str) -> bool:
    """Whether a condition is one to lead to. Other packs' guiders put a word before it, such as 'xt_positive'."""
    return name.endswith(POSITIVE)


def place_of_positive(names: Sequence[str | None]) -> int | None:
    """Of the first among an evaluation's conditions that is one to lead to, if there is one."""
    return next((place for place, name in enumerate(names) if name is not None and is_positive(name)), None)


def positive_name(conds: dict[str, list[dict[str, Any]]]) -> str | None:
    """Of a guider's conditions the name of the one to lead to, if it has one."""
    return next((name for name, entries in conds.items() if entries and is_positive(name)), None)


def weak_name(conds: dict[str, list[dict[str, Any]]]) -> str | None:
    """Of a guider's conditions the name of the one to lead away from, if it has one."""
    names = [name for name, entries in conds.items() if entries]
    return next((name for is_weak in NAMES_OF_WEAK for name in names if is_weak(name)), None)
