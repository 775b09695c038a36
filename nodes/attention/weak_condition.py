"""Which of a guider's conditions is the weak branch, and so which chunks of a batch are its rows."""

from ..sampling.condition_names import CONDITION_NAMES, NEGATIVE, is_positive

# How guiders call the condition to lead away from: a guider with the first kind of name has others of the next kinds, too.
NAMES_OF_WEAK = (
    lambda name: name == "weak",  # the ERG Guider's
    lambda name: name.startswith("empty"),  # the empty prompt of PerpNegGuider
    lambda name: name.endswith(NEGATIVE),  # 'xt_negative' in other packs
)


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


def weak_chunks(options: dict, names: frozenset[str]) -> tuple[bool, ...]:
    """For each chunk of a batch whether it is the weak branch's. Raises RuntimeError where that cannot be told.

    options: the transformer options of an evaluation. names: those of the guider's conditions.
    """
    numbers, named = options.get("cond_or_uncond", ()), options.get(CONDITION_NAMES)
    if named is not None:
        weak = weak_names(names)
        return tuple(named[number] in weak for number in numbers)
    # Another pack evaluates conditions without ComfyUI's calc_cond_batch, and numbers them as a KSampler does.
    if any(number > 1 for number in numbers):
        raise RuntimeError(
            f"ERG cannot tell the weak branch among conditions that are numbered {list(numbers)} by another node, which "
            "evaluates them in a way of its own. Take that node out."
        )
    return tuple(number == 1 for number in numbers)


def partner_chunks(options: dict, weak: tuple[bool, ...]) -> tuple[int, ...]:
    """For each chunk of a batch the positive chunk of the same pictures; itself where there is none.

    options: the transformer options of an evaluation. weak: for each chunk whether it is the weak branch's. Entries of a
    condition (regional prompts) go with those of the positive one in order, where it has as many, else all with its first.
    """
    numbers, named = options.get("cond_or_uncond", ()), options.get(CONDITION_NAMES)
    of_number = [number == 0 if named is None else is_positive(named[number] or "") for number in numbers]
    positive = [chunk for chunk, is_one in enumerate(of_number) if is_one and not weak[chunk]]
    if not positive:
        return tuple(range(len(weak)))
    partners = []
    for chunk, number in enumerate(numbers):
        entries = [other for other, same in enumerate(numbers) if same == number]
        partners.append(positive[entries.index(chunk) if len(entries) == len(positive) else 0])
    return tuple(partners)
