"""Which of a guider's conditions is the weak branch, and so which chunks of a batch are its rows."""

from typing import Any

from ..sampling.condition_names import CONDITION_NAMES, NAMES_OF_WEAK, POSITIVE, is_positive

# In transformer options: the names of an evaluation's chunks, where their numbers are those of other conditions.
CHUNK_NAMES = "entropy_guidance_chunk_names"


def weak_names(names: frozenset[str]) -> frozenset[str]:
    """Of a guider's conditions those to lead away from. Raises RuntimeError where that cannot be told."""
    for is_weak in NAMES_OF_WEAK:
        if found := frozenset(filter(is_weak, names)):
            return found
    if len(names) > 1:
        raise RuntimeError(
            f"ERG cannot tell which of this guider's conditions ({', '.join(sorted(names))}) is its weak branch. Use a "
            "KSampler, CFGGuider, DualCFGGuider, DualModelGuider, PerpNegGuider or the ERG Guider."
        )
    return frozenset()


def names_of_chunks(options: dict[str, Any]) -> tuple[str | None, ...] | None:
    """For each chunk of a batch the name of its condition, or of the branch that it is a copy for; None where no one tells.

    options: the transformer options of an evaluation.
    """
    if CHUNK_NAMES in options:
        return options[CHUNK_NAMES]
    names = options.get(CONDITION_NAMES)
    return None if names is None else tuple(names[number] for number in options.get("cond_or_uncond", ()))


def weak_chunks(options: dict[str, Any], names: frozenset[str]) -> tuple[bool, ...]:
    """For each chunk of a batch whether it is the weak branch's. Raises RuntimeError where that cannot be told.

    options: the transformer options of an evaluation. names: those of the guider's conditions.
    """
    chunks = names_of_chunks(options)
    if chunks is not None:
        weak = weak_names(names)
        return tuple(name in weak for name in chunks)
    # Another pack evaluates conditions without ComfyUI's calc_cond_batch, and numbers them as a KSampler does.
    numbers = options.get("cond_or_uncond", ())
    if any(number > 1 for number in numbers):
        raise RuntimeError(
            f"ERG cannot tell the weak branch among conditions that are numbered {list(numbers)} by another node, which "
            "evaluates them in a way of its own. Take that node out."
        )
    return tuple(number == 1 for number in numbers)


def partner_chunks(options: dict[str, Any], weak: tuple[bool, ...]) -> tuple[int, ...]:
    """For each chunk of a batch the positive chunk of the same pictures; itself where there is none.

    options: the transformer options of an evaluation. weak: for each chunk whether it is the weak branch's. Entries of a
    condition (regional prompts) go with those of the positive one in order, where it has as many, else all with its first.
    """
    names = names_of_chunks(options) or [
        POSITIVE if number == 0 else str(number) for number in options["cond_or_uncond"]
    ]
    positive = [chunk for chunk, name in enumerate(names) if is_positive(name or "") and not weak[chunk]]
    if not positive:
        return tuple(range(len(weak)))
    partners = []
    for chunk, name in enumerate(names):
        entries = [other for other, same in enumerate(names) if same == name]
        partners.append(positive[entries.index(chunk) if len(entries) == len(positive) else 0])
    return tuple(partners)
