"""CFG at gentle scales beside ERG with its node's defaults, after 2,000 steps of a training: `python -m benchmarks.gentle_cfg`.

The search of benchmarks.text_to_image passed these scales of CFG's by, and its fronts found them to be good ones on seed 0: the
training of seed 1, which nothing was chosen on, is the test. `--seed` says which one the weights of
`python -m demo.train_diffusion --seed N --until 2000` are of; each has its place in docs/results/gentle_cfg.json. Captions, noise
and measures are those of benchmarks.text_to_image, and batches are kept as there; half an hour on two cores.
"""

import argparse

from . import results
from .text_to_image.drawing import SAME, Setting
from .text_to_image.kept import BATCH, fingerprint
from .text_to_image.methods import ERG_DEFAULTS
from .text_to_image.rows import measured, processes

REGIME, STEPS = "pupil", 8
BASELINE = "I-ERG, defaults, w 1.5"
SETTINGS = {
    "CFG, w 1.25": Setting(1.25),
    "CFG, w 1.5": Setting(1.5),
    BASELINE: Setting(1.5, SAME, ERG_DEFAULTS),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the training whose weights are here")
    parser.add_argument("--batches", type=int, default=126, help=f"of {BATCH} pictures, for each row")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    options = parser.parse_args()
    _check_seed(str(options.seed))
    with processes(options.workers, quick=False) as workers:
        rows = measured(workers, REGIME, SETTINGS, options.batches, STEPS, "drawing", baseline=BASELINE)
    found = {"networks": fingerprint(REGIME), "pictures": options.batches * BATCH, "baseline": BASELINE, "rows": rows}
    results.write(
        "gentle_cfg", {"trainings": _others() | {str(options.seed): {**results.origin("gentle_cfg"), **found}}}
    )


def _check_seed(seed: str) -> None:
    """Ends the run where the weights that are here are known to be another seed's."""
    for other, training in _others().items():
        if other != seed and training["networks"] == fingerprint(REGIME):
            raise SystemExit(f"--seed {seed}: the weights that are here are of a training with --seed {other}.")


def _others() -> dict[str, dict]:
    try:
        return results.read("gentle_cfg")["trainings"]
    except FileNotFoundError:
        return {}


if __name__ == "__main__":
    main()
