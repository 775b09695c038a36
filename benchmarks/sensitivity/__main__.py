"""What each input of ERG, ERG Text Encoder, ERG Guider and CADS does around its default, and τc at several scales (figure 4 of
https://arxiv.org/abs/2504.13987): `python -m benchmarks.sensitivity`.

Steps and measures are those of `benchmarks.text_to_image`, captions and noise others, since defaults follow from this; batches
that were drawn are kept. Writes
docs/results/sensitivity.json, docs/inputs-*.png and docs/encoder-temperature-*.png, each as .svg, too.
"""

import argparse

from .. import results
from ..demo_models import REGIMES
from ..text_to_image.drawing import Setting
from ..text_to_image.joined import check_alike, check_same, earlier_runs
from ..text_to_image.kept import BATCH, SEEDS
from ..text_to_image.rows import measured, processes
from . import figures
from .sweeps import defaults, of_encoder_temperature, of_inputs

NONE = ("none",)
MEASURES = ("asked", "exact", "density", "coverage", "Fréchet", "diversity")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regimes", nargs="*", choices=REGIMES, default=["demo model"])
    parser.add_argument("--batches", type=int, default=18, help=f"of {BATCH} pictures, for each value")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument(
        "--join", action="store_true", help="draw what the results have not yet, and put it beside them"
    )
    parser.add_argument("--quick", action="store_true", help="a few pictures of four values, in minutes; not into docs")
    options = parser.parse_args()
    inputs, temperatures = of_inputs(), of_encoder_temperature()
    if options.quick:
        inputs, temperatures = dict([*inputs.items()][:2]), dict([*temperatures.items()][:2])
        options.batches, options.steps = 1, 2
    terms = {"steps": options.steps, "pictures": options.batches * BATCH, "seeds": SEEDS}
    earlier = results.read("sensitivity") if options.join else None
    if options.join:
        check_alike(earlier, terms, "sensitivity")
    with processes(options.workers, options.quick) as workers:
        rows = {}
        for regime in options.regimes:
            there = _measured_before(earlier, regime)
            settings = {NONE: Setting(), **inputs, **temperatures}
            settings = {point: setting for point, setting in settings.items() if point == NONE or point not in there}
            found = measured(
                workers, regime, settings, options.batches, options.steps, regime, baseline=NONE, purpose="inputs"
            )
            found = {point: {name: row[name] for name in MEASURES} for point, row in found.items()}
            if NONE in there:
                check_same("no guidance", there[NONE], found[NONE])
            found |= there
            rows[regime] = {
                "none": found[NONE],
                "inputs": _nested({point: found[point] for point in inputs}),
                "encoder temperature": _nested({(str(w), str(τc)): found[w, τc] for w, τc in temperatures}),
            }
    written = {
        **terms,
        **({"earlier runs": earlier_runs(earlier)} if earlier else {}),
        "defaults": defaults(),
        "rows": rows,
    }
    results.write("sensitivity", written, options.quick)
    for draw in (figures.inputs, figures.encoder_temperature):
        draw(written, results.folder(options.quick))


def _measured_before(earlier: dict | None, regime: str) -> dict[tuple, dict]:
    """The rows of a model by their points, as of_inputs() and of_encoder_temperature() have them; none without results."""
    if earlier is None or regime not in earlier["rows"]:
        return {}
    rows = earlier["rows"][regime]
    of_inputs = {
        (node, name, value): row
        for node, inputs in rows["inputs"].items()
        for name, values in inputs.items()
        for value, row in values.items()
    }
    of_temperatures = {
        (float(w), float(τc)): row for w, values in rows["encoder temperature"].items() for τc, row in values.items()
    }
    return {NONE: rows["none"], **of_inputs, **of_temperatures}


def _nested(found: dict[tuple[str, ...], dict]) -> dict:
    """{(a, b): x} as {a: {b: x}}."""
    nested: dict = {}
    for (*path, last), value in found.items():
        place = nested
        for key in path:
            place = place.setdefault(key, {})
        place[last] = value
    return nested


if __name__ == "__main__":
    main()
