"""The grammar of layer selections."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance_core.layer_selection import parse_layers

PLAIN = (None,) * 12
UNET = ("input",) * 4 + ("middle",) * 2 + ("output",) * 6


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("all", set(range(12))),
        ("ALL ", set(range(12))),
        ("0", {0}),
        ("3, 7-9", {3, 7, 8, 9}),
        ("3,7 - 9", {3, 7, 8, 9}),
        ("10-99", {10, 11}),
        ("40%-60%", {5, 6}),
        ("40-60%", {5, 6}),
        ("0%-100%", set(range(12))),
        ("0%-50%, 11", {0, 1, 2, 3, 4, 5, 11}),
        ("12.5%-37.5%", {1, 2, 3, 4}),  # of layer 1 the middle is at 12.5 %, of layer 4 at 37.5 %
    ],
)
def test_selects(text, layers):
    assert parse_layers(text).choose(PLAIN) == layers


@pytest.mark.parametrize(
    ("text", "layers"),
    [("middle", {4, 5}), ("input, 11", {0, 1, 2, 3, 11}), ("output", set(range(6, 12))), ("all", set(range(12)))],
)
def test_selects_sections_of_a_unet(text, layers):
    assert parse_layers(text).choose(UNET) == layers


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "3,,4",
        ",",
        "a",
        "-1",
        "3-",
        "1.5",
        "40%",
        "50%-40%",
        "50%-50%",
        "0%-101%",
        "9-7",
        "all-3",
        "9" * 5000,
        "\ud800",
    ],
)
def test_rejects_what_it_cannot_read(text):
    with pytest.raises(ValueError, match="layers = ") as error:
        parse_layers(text)
    assert f"layers = {text!r}" in str(error.value)
    str(error.value).encode()  # a log has to hold it


@pytest.mark.parametrize(("text", "sections"), [("12", PLAIN), ("middle", PLAIN), ("50-60", UNET), ("0%-1%", PLAIN)])
def test_names_the_number_of_layers_where_nothing_is_selected(text, sections):
    counts = r" \(4 in 'input', 2 in 'middle', 6 in 'output'\)" if sections is UNET else ""
    named = rf"layers = '{text}' selects nothing: this model has 12 layers, numbered 0 to 11{counts}\."
    with pytest.raises(ValueError, match=named):
        parse_layers(text).choose(sections)


def test_all_are_all_of_any_number():
    assert parse_layers("all").choose((None,) * 1000) == set(range(1000))


@given(st.integers(1, 200), st.floats(0, 99), st.floats(0.1, 100))
def test_percent_ranges_partition_the_depth(count, low, width):
    """Every layer lies in a range or outside of it, and neighbouring ranges leave no gap."""
    middle = f"{min(low + width, 100):.1f}"
    sections = (None,) * count

    def choose(text):
        try:
            return parse_layers(text).choose(sections)
        except ValueError:
            return frozenset()

    below = choose(f"0%-{middle}%") if float(middle) > 0 else frozenset()
    above = choose(f"{middle}%-100%") if float(middle) < 100 else frozenset()
    assert below | above == set(range(count))
