"""How sure a classifier is of the wanted classes, in words."""

import math
from collections.abc import Sequence


def how_sure(probabilities: Sequence[float], wanted: Sequence[str]) -> str:
    """Such as "classifier 83 % sure of 'cat' (41 to 97 %)": the mean over the pictures, and the range of several.

    probabilities: of each picture's wanted class, 0..1, or not finite where the classifier could not tell. wanted: those classes.
    """
    known = [100 * probability for probability in probabilities if math.isfinite(probability)]
    if not known:
        return "the classifier's values not finite"
    spread = f" ({min(known):.0f} to {max(known):.0f} %)" if len(known) > 1 else ""
    return f"classifier {sum(known) / len(known):.0f} % sure of {in_words(wanted)}{spread}"


def in_words(wanted: Sequence[str]) -> str:
    """The wanted classes of some pictures."""
    return f"'{wanted[0]}'" if len(set(wanted)) == 1 else "the wanted classes"
