"""Values of an input, from its declaration in ComfyUI: what a widget may hold, and what a link may bring beyond it."""

import re

from hypothesis import strategies as st

NUMBERS = {"FLOAT": float, "INT": int}
WIDGETS = (*NUMBERS, "BOOLEAN", "STRING", "COMBO")
# What a larger number would only make slow: as many steps and pixels as the artist asks for.
LARGEST = {"steps": 2, "resolution": 64}
SLOW = ("steps",)  # where any number is taken, and takes its time
WORDS = ("red", "blue", "0", "5", "17", "all", "middle", "3", "0%-50%", "50%-100%", "0.5")
SEPARATORS = (", ", ",", "\n", "-", " ")
NOT_FINITE = (float("nan"), float("inf"), float("-inf"))


def first(name: str, kind: str, options: dict) -> st.SearchStrategy:
    """What a node begins with: the default, and any choice where there are few, since one bad value stops a graph."""
    if options.get("default") is None:
        return widget(name, kind, options)
    default = st.just(_held(name, options["default"]))
    return st.one_of(default, default, widget(name, kind, options)) if kind in ("BOOLEAN", "COMBO") else default


def widget(name: str, kind: str, options: dict) -> st.SearchStrategy:
    """All that the frontend lets an artist type or choose."""
    if kind in NUMBERS:
        return _number(kind, options["min"], _held(name, options["max"]), options.get("step", 1))
    if kind == "BOOLEAN":
        return st.booleans()
    if kind == "COMBO":
        return st.sampled_from(options["options"]) if options["options"] else st.just("none there")
    return _texts(options)


def linked(name: str, kind: str, options: dict) -> st.SearchStrategy:
    """What another node's output may bring: the type is right, the range is anything."""
    if kind == "FLOAT":
        return st.one_of(
            st.sampled_from(NOT_FINITE), st.sampled_from((-1.0, -1e-9, 0.0, 1e38, -1e38, 1e300)), st.floats()
        )
    if kind == "INT":
        huge = st.integers(-(2**70), 0 if name in SLOW else 2**70)
        return st.one_of(st.sampled_from((-(2**63), -1, 0)), huge)
    if kind == "BOOLEAN":
        return st.booleans()
    return st.one_of(
        st.text(max_size=20), st.sampled_from(("", " ", "nan", "../x", "a\0b", "\ud800", "9" * 5000, "x" * 300, ",,"))
    )


def _number(kind: str, low, high, step) -> st.SearchStrategy:
    """Either end, anything between, and the next ones to the lower end that a widget's arrows give."""
    between = st.floats(low, high) if kind == "FLOAT" else st.integers(low, high)
    near = st.integers(0, 100).map(lambda steps: min(low + steps * step, high))
    return st.one_of(st.sampled_from((low, high)), between, near)


def _texts(options: dict) -> st.SearchStrategy:
    """Words of the tooltip and of our own, alone and joined."""
    words = sorted({*WORDS, *re.findall(r"[\w%.-]+", options.get("tooltip", "")), options.get("default", "")})
    some = st.lists(st.sampled_from(words), min_size=1, max_size=3)
    return st.one_of(st.sampled_from(WORDS), st.builds(str.join, st.sampled_from(SEPARATORS), some))


def _held(name: str, number):
    return min(number, LARGEST[name]) if name in LARGEST else number
