"""Which of a guider's conditions is the weak branch, and so which chunks of a batch are its rows."""

NEGATIVE = 1  # the number in `cond_or_uncond` of a KSampler's negative condition
# For guiders of three conditions, by the name of their class: the number and the name of the one to lead away from.
WEAK_CONDITION = {
    "Guider_DualCFG": (0, "negative"),
    "Guider_PerpNeg": (2, "empty_negative_prompt"),
    "EntropyGuider": (1, "weak"),
}


def weak_chunks(options: dict, guider) -> tuple[bool, ...]:
    """For each chunk of a batch whether it is the weak branch's. Raises RuntimeError where that cannot be told.

    options: the transformer options of an evaluation. guider: ComfyUI's, of the sampling that is running; may be None.
    """
    conditions = options.get("cond_or_uncond", ())
    known = WEAK_CONDITION.get(type(guider).__name__)
    if known is None and any(condition > NEGATIVE for condition in conditions):
        raise RuntimeError(
            "ERG cannot tell which of this guider's conditions is its weak branch, because it has more than a positive "
            "and a negative one. Use a KSampler, CFGGuider, DualCFGGuider, PerpNegGuider or the ERG Guider."
        )
    weak, name = known or (NEGATIVE, "negative")
    if weak > 0:
        return tuple(condition == weak for condition in conditions)
    # Nodes that evaluate a single condition (PAG, skip layer guidance) number it 0, whichever it is.
    others = {entries[0]["uuid"] for other, entries in guider.conds.items() if other != name}
    return tuple(c == weak and uuid not in others for c, uuid in zip(conditions, options["uuids"], strict=True))
