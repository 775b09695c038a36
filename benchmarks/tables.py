"""The tables of the pages, a function each, from results of benchmarks.

`<!-- numbers: NAME -->` in a page stands for the function of that name. Each gets `read`, which gives the results of a
benchmark by its name (`results.read`), and returns Markdown.
"""

from .jackknife import HALF
from .markdown import Read, joined, table, with_interval
from .text_to_image.tables import BEGINNER, EARLIER, LEARNER, OF_PICTURES, PUPIL, UNET, UNPROMPTED_IN_THE_PAPER

CALIBRATED = {
    "CE": "CE alone",
    "CE + printed form": "CE + Smooth ECE, as printed",
    "CE + per-bin form": "CE + Smooth ECE, per bin",
    "entropy-aware": "entropy-aware (η 0.2)",
}
AS_IT_CAME = "as it came"
CLASSIFIER_METHODS = {
    "no guidance": "no guidance",
    "Dhariwal": "Dhariwal & Nichol (noise-aware)",
    "ma2023": "ma2023 (off-the-shelf)",
    "tilted": "ma2023, tilted (-0.2)",
    "entropy": "ma2023, entropy bonus (0.2)",
}


BY_DISTANCE = ("reverse KL", "tilted", "forward KL", "Jensen-Shannon")
BY_PROMPT = {"I-ERG": "I-ERG, same prompt", "ERG": "ERG", "ERG + APG": "ERG + APG"}
BY_ACCURACY = ("none", "ma2023", "reverse KL", "CFG", "I-ERG, class as negative")
OTHERS_IN_PIXELS = ("Smooth-ECE fine-tuned", "entropy-aware", "Dhariwal & Nichol")


def _beside_cfg(regimes: dict) -> list[tuple[str, str, str]]:
    """For each model with a table, measures of prompts relative to CFG's, of ERG in its forms."""
    return [
        (
            f"text to image relative to CFG, each after a search, {what}: {consistency} / density / coverage",
            ", ".join(
                f"{short} {_relative(regimes[regime]['prompted']['rows'], name, consistency)}"
                for short, name in BY_PROMPT.items()
                if name in regimes[regime]["prompted"]["rows"]
            ),
            "ERG 1.05 / 1.22 / 1.03, ERG + APG 1.05 / 1.17 / 1.13",
        )
        for regime, what, consistency in (
            ("demo model", "demo model", "exact"),
            (EARLIER, "an earlier checkpoint of it", "exact"),
            (LEARNER, "after 4,000 steps of training", "exact"),
            (PUPIL, "after 2,000 steps", "asked"),
            (BEGINNER, "after 1,000 steps, which hardly draws", "asked"),
            (UNET, "a U-Net of SD1.5's class, which draws soft shapes", "asked"),
        )
    ]


def _of_two_trainings(trainings: dict) -> tuple[str, str, str]:
    """I-ERG with its node's defaults relative to CFG at each scale, after each training."""
    baseline = trainings["0"]["baseline"]

    def beside(name: str) -> str:
        rows = (of["rows"] for of in trainings.values())
        return f"{name}: {', '.join(_ratios(row[baseline], row[name], row[name], 'asked') for row in rows)}"

    return (
        "the demo model's network, I-ERG with its defaults at `cfg` 1.5 relative to CFG at two scales, after 2,000 steps of each of two trainings",
        "; ".join(beside(name) for name in trainings["0"]["rows"] if name != baseline),
        "–",
    )


def _relative(rows: dict, name: str, consistency: str) -> str:
    return _ratios(rows[name], rows["CFG"], rows[name], consistency)


def _ratios(ours: dict, cfg: dict, differences: dict, consistency: str) -> str:
    """In bold what is further from CFG than its 95 % interval, where that is known. differences: whichever of the two rows has
    them."""

    def ratio(measure: str) -> str:
        text, apart = f"{ours[measure]['value'] / cfg[measure]['value']:.2f}", differences[measure]
        is_sure = "error above" in apart and abs(apart["above"]) > HALF * apart["error above"]
        return f"**{text}**" if is_sure else text

    return " / ".join(map(ratio, (consistency, "density", "coverage")))


def summary(read: Read) -> str:
    """README's."""
    steps = [row["ERG"]["time"]["value"] for row in read("step_cost")["rows"].values()]
    regimes = read("text_to_image")["regimes"]
    unprompted = regimes[BEGINNER]["unconditional"]["rows"]
    alone = {name: row["Fréchet"]["value"] for name, row in unprompted.items()}
    guided = read("classifier_guidance")["rows"]
    errors, calibrated = (read("calibration")[part] for part in ("rows", "guidance"))
    shown = (guided[name]["accuracy"]["value"] for name in ("no guidance", "ma2023", "Dhariwal"))
    reverse, forward = (
        guided[name]["Fréchet"]["value"] / guided["ma2023"]["Fréchet"]["value"] for name in ("reverse KL", "forward KL")
    )
    pixels = read("class_conditional")
    relative = pixels["Fréchet, relative"]
    before, after, plain = (errors[name]["smooth_ece"]["value"] for name in (AS_IT_CAME, "CE + printed form", "CE"))
    gains = [calibrated[name]["Fréchet"]["value"] / calibrated[AS_IT_CAME]["Fréchet"]["value"] for name in CALIBRATED]
    return table(
        "| measured here | in the paper",
        [
            ("time of a step, ERG / CFG, six networks", f"{min(steps):.2f} to {max(steps):.2f}", "1"),
            *_beside_cfg(regimes),
            _of_two_trainings(read("gentle_cfg")["trainings"]),
            (
                "a hardly trained model without a prompt: Fréchet distance of SEG / I-ERG (PAG), relative to no guidance",
                joined((alone[name] / alone["none"] for name in ("SEG", "I-ERG")), ".2f")
                + f" ({alone['PAG'] / alone['none']:.2f})",
                joined(
                    (UNPROMPTED_IN_THE_PAPER[name] / UNPROMPTED_IN_THE_PAPER["none"] for name in ("SEG", "I-ERG")),
                    ".2f",
                ),
            ),
            (
                "classifier guidance, share of pictures of the wanted class: none / off-the-shelf / noise-aware",
                joined(shown, ".2f"),
                "–",
            ),
            (
                "Fréchet distance of reverse KL and forward KL / off-the-shelf, each at its best scale",
                f"{reverse:.2f} and {forward:.2f}",
                "0.98 and 0.99",
            ),
            (
                "the same in pixels, class-conditional: reverse KL / tilted / forward KL / Jensen-Shannon",
                joined((relative[name]["ours"] for name in BY_DISTANCE), ".2f"),
                "0.98 / 0.99 / 0.99 / 0.97",
            ),
            (
                "the same: share of pictures of the wanted class, none / off-the-shelf / reverse KL / CFG / I-ERG",
                joined((pixels["rows"][name]["accuracy"]["value"] for name in BY_ACCURACY), ".2f"),
                "–",
            ),
            (
                "calibration: smooth ECE before → after (plain fine-tuning)",
                f"{before:.3f} → {after:.3f} ({plain:.3f})",
                "–",
            ),
            (
                "Fréchet distance of guidance after / before calibration, with any of the losses",
                f"{min(gains):.2f} to {max(gains):.2f}",
                "0.97",
            ),
            (
                "the same in pixels: Smooth ECE / entropy-aware / a noise-aware classifier",
                joined((relative[name]["ours"] for name in OTHERS_IN_PIXELS), ".2f"),
                "0.97 / 1.22 / 1.36",
            ),
        ],
    )


SIDES = ("ERG", "ERG, all layers", "ERG, flatness", "ERG, twin", "CFG + own ERG", "core PAG", "core NAG")
NETWORKS = {
    "demo, 4 pictures": "demo model, 4 pictures",
    "SD1.5": "SD1.5 (half of the blocks)",
    "SDXL": "SDXL (8 of 70)",
    "SD3.5 medium": "SD3.5 medium (6 of 24)",
    "Flux": "Flux (5 of 57)",
    "Wan 2.1 1.3B": "Wan 2.1 1.3B (5 of 30)",
}


def step_time(read: Read) -> str:
    def cells(name: str, label: str):
        row = read("step_cost")["rows"][name]
        times = (row[side]["time"] for side in SIDES)
        return (
            label,
            f"{row['CFG']['ms']:.0f} ms",
            *(f"{t['value']:.3f} ({t['low']:.3f}-{t['high']:.3f})" for t in times),
        )

    return table(f"model | CFG step | {' | '.join(SIDES)}", (cells(*item) for item in NETWORKS.items()))


def step_arithmetic(read: Read) -> str:
    def cells(name: str, label: str):
        row = read("step_cost")["rows"][name]
        sides = (row[side] for side in SIDES)
        return label, *(f"{s['arithmetic']:.3f}; {s['memory']:.3f}; {s['operators']:+}" for s in sides)

    header = f"arithmetic; peak memory / CFG; operators more | {' | '.join(SIDES)}"
    return table(header, (cells(*item) for item in NETWORKS.items()))


NEGATIVE, OWN, BOTH = "ERG on the negative branch", "ERG of its own at cfg 1", "CFG + ERG of its own"
MIDDLE = ", middle half"


def evaluations(read: Read) -> str:
    return _evaluations(
        read,
        "mode | evaluations",
        {
            "no guidance; CFG": ("no guidance", "CFG"),
            f"{NEGATIVE}; guided in the middle half alone": (NEGATIVE, NEGATIVE + MIDDLE),
            f"{OWN}; in the middle half alone; with share_trunk off": (OWN, OWN + MIDDLE, f"{OWN}, share_trunk off"),
            f"{BOTH}; in the middle half alone": (BOTH, BOTH + MIDDLE),
            "core PAG at cfg 1; CFG + core PAG; core NAG at cfg 1": (
                "core PAG at cfg 1",
                "CFG + core PAG",
                "core NAG at cfg 1",
            ),
        },
    )


def evaluations_of_modes(read: Read) -> str:
    """For the node's help page."""
    return _evaluations(
        read,
        "| evaluations",
        {
            "no guidance; CFG; CFG + core PAG; core NAG at `cfg` 1": (
                "no guidance",
                "CFG",
                "CFG + core PAG",
                "core NAG at cfg 1",
            ),
            "ERG on the negative; in the middle half with `outside` = no guidance": (NEGATIVE, NEGATIVE + MIDDLE),
            "ERG of its own at `cfg` 1; in the middle half": (OWN, OWN + MIDDLE),
            f"{BOTH}; in the middle half with `outside` = no guidance": (BOTH, BOTH + MIDDLE),
        },
    )


def _evaluations(read: Read, header: str, modes: dict[str, tuple[str, ...]]) -> str:
    found = read("evaluations")["rows"]
    return table(header, ((label, "; ".join(f"{found[n]:.2f}" for n in names)) for label, names in modes.items()))


FLATNESS_MEASURES = ("exact", "relation", "density", "coverage", "Fréchet")


def flatness(read: Read) -> str:
    found = read("flatness")
    telling, good, lost = (
        found[key]
        for key in (
            "cells that tell settings apart",
            "cells in which a setting is good",
            "lost where tuned on another cell",
        )
    )
    digits = {name: 2 if name == "Fréchet" else 3 for name in FLATNESS_MEASURES}

    def best(way: str):
        return (_best(good[name], way) for name in (*FLATNESS_MEASURES, "all measures"))

    def losses(way: str):
        return (*(f"{lost[name][way]:.{digits[name]}f}" for name in FLATNESS_MEASURES), "")

    def difference(name: str) -> str:
        row, form = lost[name], f".{digits[name]}f"
        return f"{row['f less τ'] + 0.0:{form}} ± {row['standard error']:{form}}"

    return table(
        f"| {' | '.join(FLATNESS_MEASURES)} | all",
        [
            ("cells (of 9) that tell settings apart", *map(str, telling.values()), str(sum(telling.values()))),
            ("of these, good at the best single τ", *best("τ")),
            ("of these, good at the best single f", *best("f")),
            ("lost by a τ tuned on another cell", *losses("τ")),
            ("lost by an f tuned on another cell", *losses("f")),
            ("f less τ, ± standard error", *map(difference, FLATNESS_MEASURES), ""),
        ],
    )


def _best(counts: dict[str, int], way: str) -> str:
    """In how many cells the best settings of one way are good, and which these are, the gentlest first."""
    ours = {float(setting.split()[1]): count for setting, count in counts.items() if setting[0] == way}
    most = max(ours.values())
    values = sorted((value for value, count in ours.items() if count == most), reverse=way == "τ")
    return f"{most} ({', '.join(map(str, values))})"


def classifier_guidance(read: Read) -> str:
    rows = read("classifier_guidance")["rows"]
    base = rows["ma2023"]["Fréchet"]["value"]

    def cells(name: str, row: dict):
        paper = f"{row['paper']:.2f}" if row["paper"] else "–"
        label, scale = CLASSIFIER_METHODS.get(name, name), f"{row['scale']:g}" if row["scale"] else "–"
        return label, scale, *_guided_cells(row), f"{row['Fréchet']['value'] / base:.2f}", paper

    header = f"method | scale | {GUIDED_COLUMNS} | Fréchet / ma2023 | in the paper"
    return table(header, (cells(*item) for item in rows.items()))


GUIDED = {"accuracy": ".2f", "clean": ".2f", "Fréchet": ".1f", "joint": ".1f", "precision": ".2f", "recall": ".2f"}
GUIDED_COLUMNS = " | ".join(GUIDED)


def _guided_cells(row: dict) -> list[str]:
    """Each measure, and in brackets how far it is above the baseline's, with 95 %; nothing in brackets for the baseline."""

    def cell(measured: dict[str, float], form: str) -> str:
        if not measured["error above"]:
            return f"{measured['value']:{form}}"
        half = HALF * measured["error above"]
        return f"{measured['value']:{form}} ({measured['above']:+{form}} ± {half:{form}})"

    return [cell(row[name], form) for name, form in GUIDED.items()]


def calibration(read: Read) -> str:
    rows = read("calibration")["rows"]
    labels = {AS_IT_CAME: "not at all", **CALIBRATED, "CE": "cross-entropy (CE) alone"}

    def cells(name: str, label: str):
        means = (_with_deviation(rows[name][key]) for key in ("accuracy", "ece", "smooth_ece"))
        stages = (f"{rows[name][f'smooth_ece {stage}']['value']:.3f}" for stage in ("25%", "50%", "75%", "100%"))
        return label, *means, *stages

    header = "fine-tuned on | accuracy | ECE | smooth ECE | at 25 % | 50 % | 75 % | finished"
    return table(header, (cells(*item) for item in labels.items()))


def _with_deviation(measure: dict[str, float]) -> str:
    return f"{measure['value']:.3f}" + (f" ± {measure['deviation']:.3f}" if "deviation" in measure else "")


def calibration_guidance(read: Read) -> str:
    rows = read("calibration")["guidance"]
    base = rows[AS_IT_CAME]["Fréchet"]["value"]

    def cells(name: str, label: str):
        return label, *_guided_cells(rows[name]), f"{rows[name]['Fréchet']['value'] / base:.2f}"

    paper = "*paper, ImageNet 128: before → Smooth ECE*|–|–|6.15 → 5.94|–|.77 → .79|.68 → .66|0.97".split("|")
    labels = {AS_IT_CAME: "the classifier as it came", **CALIBRATED}
    return table(
        f"guided by | {GUIDED_COLUMNS} | Fréchet / as it came", [*(cells(*item) for item in labels.items()), paper]
    )


def guidance_steps(read: Read) -> str:
    steps = read("guidance_cost")["steps"]

    def cells(decode: str, every: int, label: str):
        row = steps[f"{decode}, every {every}"]
        return label, str(every), f"{row['time']:.1f} × {row['unguided ms']:.0f} ms", f"{row['MiB']:.0f} MiB"

    ways = (("full", 1, "full (a TAESD here)"), ("full", 4, "full"), ("half", 1, "half"), ("half", 4, "half"))
    return table("`decode` | `every` | time | peak memory", (cells(*way) for way in ways))


def gradient_arithmetic(read: Read) -> str:
    """For the node's help page."""
    found = read("guidance_cost")["arithmetic"]
    rows = ((name, f"{row['evaluations']:.2g}", f"{row['evaluations'] / 4:.2g}") for name, row in found.items())
    return table("`decode` | one gradient | each step", rows)


def class_conditional(read: Read) -> str:
    found = read("class_conditional")
    measures = [*next(iter(found["rows"].values()))]

    def cells(name: str, row: dict):
        ratios = found["Fréchet, relative"].get(name, {})
        numbers = (with_interval(row[m]) for m in measures)
        best = found["tried"][name][0]["setting"] if name in found["tried"] else {}
        scale = f"{best['scale'] or best['cfg']:g}" if best else "–"
        fewer = found["fewer pictures"].get(name)
        name = f"{name} ({fewer:,} pictures)" if fewer else name
        return name, scale, *numbers, *(f"{ratios[key]:.3f}" if ratios.get(key) else "–" for key in ("ours", "paper"))

    header = f"| scale | {' | '.join(measures)} | Fréchet / baseline | in the paper"
    return table(header, (cells(*item) for item in found["rows"].items()))


def class_calibration(read: Read) -> str:
    """Of the class-conditional model's classifiers: means over the shares of the sampling, and smooth ECE at each."""
    rows = read("class_calibration")["rows"]
    shares = ("25%", "50%", "75%", "100%")
    names = {"clean": "not at all", "CE": "cross-entropy (CE) alone", "Smooth-ECE": "CE + Smooth ECE"}
    return table(
        "fine-tuned on | accuracy | confidence | ECE | smooth ECE | at 25 % | 50 % | 75 % | finished",
        (
            (
                names.get(name, f"{name} (η 0.2)"),
                *(f"{row[key]:.3f}" for key in ("accuracy", "confidence", "ece", "smooth_ece")),
                *(f"{row[f'smooth_ece {share}']:.3f}" for share in shares),
            )
            for name, row in rows.items()
        ),
    )


def judges(read: Read) -> str:
    """What is left of density and coverage where real pictures are harmed."""
    found = read("judges")["rows"]
    kinds = ("density, trained", "coverage, trained", "density, untrained", "coverage, untrained")
    return table(
        "|".join(["real pictures", *kinds]),
        ((name, *(f"{row[kind]:.2f}" for kind in kinds)) for name, row in found.items()),
    )


def coverage(read: Read) -> str:
    def share(row: dict, kind: str) -> str:
        ran, of = row[f"{kind} that ran"], row[kind]
        return f"{ran / of:.1%} of {of:,}" if of else "–"

    rows = read("coverage")["rows"].items()
    return table(
        "folder | tests | lines | branches",
        ((f"`{name}`", f"`{row['tests']}`", share(row, "lines"), share(row, "branches")) for name, row in rows),
    )


def mutants(read: Read) -> str:
    rows = read("mutants")["rows"].items()
    return table(
        "file | changes | noticed | not noticed",
        (
            (f"`{name}`", f"{row['changes']}", f"{row['changes'] - len(row['unnoticed'])}", f"{len(row['unnoticed'])}")
            for name, row in rows
        ),
    )


def fuzzing(read: Read) -> str:
    """What came of graphs at random."""
    return table("outcome | graphs", ((kind, str(count)) for kind, count in read("fuzzing")["rows"].items()))


def endurance(read: Read) -> str:
    """What a server's process holds in a thousand prompts, beside one that runs ComfyUI's nodes alone."""
    ours, alone = read("endurance")["rows"].values()

    def grows(row: dict) -> str:
        value, low, high = (row["grows in 1,000 prompts"][key] for key in ("value", "low", "high"))
        return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"

    return table(
        "held by the process | first | last | highest | grows in 1,000 prompts | with ComfyUI's nodes alone",
        (
            (name, *(f"{row[key]:,.0f}" for key in ("first", "last", "highest")), grows(row), grows(alone[name]))
            for name, row in ours.items()
        ),
    )


TABLES = {
    function.__name__: function
    for function in (
        summary, step_time, step_arithmetic, evaluations, evaluations_of_modes, flatness,
        classifier_guidance, calibration, calibration_guidance, guidance_steps, gradient_arithmetic, class_conditional,
        class_calibration, judges, coverage, mutants, fuzzing, endurance, *OF_PICTURES,
    )
}  # fmt: skip
