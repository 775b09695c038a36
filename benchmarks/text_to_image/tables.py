"""The tables of the comparison, a function each, from its results: measures, differences, fronts, and what searches chose."""

from collections.abc import Iterable

from ..jackknife import HALF
from ..markdown import Read, joined, table, with_interval

SHIPPED, EARLIER, BEGINNER, PUPIL, LEARNER = "demo model", "earlier checkpoint", "beginner", "pupil", "learner"
UNET = "U-Net twin"
TITLES = {
    (SHIPPED, "prompted"): "demo model",
    (SHIPPED, "unconditional"): "demo model, no prompt",
    (EARLIER, "prompted"): "earlier checkpoint",
    (BEGINNER, "unconditional"): "after 1,000 steps, no prompt",
    (BEGINNER, "prompted"): "after 1,000 steps",
    (PUPIL, "prompted"): "after 2,000 steps",
    (LEARNER, "prompted"): "after 4,000 steps",
    (UNET, "prompted"): "U-Net",
}
# arXiv 2504.13987, COCO'14 at 512 pixels, relative to CFG's: VQAScore, density, coverage, FID.
IN_THE_PAPER = {
    "APG": (72.47 / 70.15, 104.07 / 98.24, 73.06 / 71.12, 11.88 / 12.81),
    "SAG": (72.16 / 70.15, 103.58 / 98.24, 72.74 / 71.12, 11.68 / 12.81),
    "C-ERG": (73.10 / 70.15, 109.52 / 98.24, 72.06 / 71.12, 13.06 / 12.81),
    "ERG": (73.96 / 70.15, 120.25 / 98.24, 73.21 / 71.12, 13.62 / 12.81),
    "ERG, γ tuned": (74.67 / 70.15, 123.65 / 98.24, 74.07 / 71.12, 13.62 / 12.81),
    "ERG + APG": (73.55 / 70.15, 115.08 / 98.24, 80.50 / 71.12, 11.37 / 12.81),
    "ERG + CADS": (73.45 / 70.15, 128.54 / 98.24, 76.23 / 71.12, 12.87 / 12.81),
}
UNPROMPTED_IN_THE_PAPER = {"none": 101.50, "SEG": 37.75, "I-ERG": 36.25}  # FID without a prompt, arXiv 2504.13987
OF_INTEREST = (
    "asked", "exact", "clean", "density", "coverage", "density, untrained", "coverage, untrained", "Fréchet", "recall",
    "diversity",
)  # fmt: skip
REAL = "real pictures"
OF_A_PROMPT = ("asked", "exact", "relation", "diversity")
FURTHER = ("relation", "precision", "recall", "clipped", "off palette")  # in a second table: one of all is too wide
OF_A_THOUSAND = ("clipped", "off palette")  # too small for three decimals
NOT_OF_REAL = "diversity"  # each real picture has a caption of its own


def text_to_image(found: dict, kind: str, regime: str = SHIPPED) -> str:
    """Two tables of benchmarks.text_to_image, of all rows: what methods are judged by, and what else was measured. kind: prompted
    or unconditional."""
    of_kind, prompted = found["regimes"][regime][kind], kind == "prompted"
    measures = [name for name in of_kind["real pictures"] if prompted or name not in OF_A_PROMPT]
    of_interest, further = ([m for m in measures if (m in FURTHER) == later] for later in (False, True))
    return f"{_measures(of_kind, of_interest, with_scale=True)}\n\n{_measures(of_kind, further)}"


def _measures(of_kind: dict, measures: list[str], with_scale: bool = False) -> str:
    def cells(name: str, row: dict[str, dict[str, float]]) -> list[str]:
        scale = [_w(of_kind["settings"][name]) if name in of_kind["settings"] else "–"] * with_scale
        return [
            *scale,
            *("–" if m not in row or (name, m) == (REAL, NOT_OF_REAL) else _cell(row[m], m) for m in measures),
        ]

    heads = [f"{measure}, ‰" if measure in OF_A_THOUSAND else measure for measure in measures]
    rows = of_kind["rows"] | {REAL: of_kind["real pictures"]}
    return table("|".join(["", *["w"] * with_scale, *heads]), ((name, *cells(name, row)) for name, row in rows.items()))


def _cell(measured: dict[str, float], measure: str) -> str:
    if measure in OF_A_THOUSAND:
        measured = {name: 1000 * value for name, value in measured.items()}
        return with_interval(measured, form=".2f" if measure == "clipped" else ".1f")
    return with_interval(measured)


def _above_baseline(found: dict, regime: str = SHIPPED) -> str:
    """How far each method of a table is from its baseline, with 95 % intervals; in bold what is further than that."""
    tables = found["regimes"][regime]["prompted"]
    names = [name for name in tables["rows"] if name != tables["baseline"]]
    measures = [name for name in OF_INTEREST if name in tables["real pictures"]]
    return table(
        "|".join([f"less {tables['baseline']}", *measures]),
        ((name, *_differences(tables["rows"][name], measures)) for name in names),
    )


def _differences(row: dict[str, dict[str, float]], measures: Iterable[str], sign: int = 1) -> list[str]:
    def cell(measured: dict[str, float]) -> str:
        above, half = sign * measured["above"], HALF * measured["error above"]
        text = f"{above:+.3f} ± {half:.3f}"
        return f"**{text}**" if abs(above) > half else text

    return [cell(row[measure]) if measure in row else "–" for measure in measures]


def text_to_image_beside_paper(read: Read) -> str:
    """Of the paper's rows, consistency / density / coverage / Fréchet distance relative to CFG's, the paper's beside ours."""
    regimes = read("text_to_image")["regimes"]
    ours = {title: regimes[regime]["prompted"] for (regime, kind), title in TITLES.items() if kind == "prompted"}

    def relative(of: dict, name: str) -> str:
        if name not in of["rows"]:
            return "–"
        row, cfg = of["rows"][name], of["rows"]["CFG"]
        measures = (of.get("consistency", "exact"), "density", "coverage", "Fréchet")
        return joined((row[m]["value"] / cfg[m]["value"] for m in measures), ".2f")

    return table(
        "|".join(["", "in the paper", *ours]),
        (
            (name, joined(paper, ".2f"), *(relative(of, name) for of in ours.values()))
            for name, paper in IN_THE_PAPER.items()
        ),
    )


def text_to_image_prompted(read: Read) -> str:
    return text_to_image(read("text_to_image"), "prompted")


def text_to_image_less_cfg(read: Read) -> str:
    return _above_baseline(read("text_to_image"))


def text_to_image_earlier(read: Read) -> str:
    return text_to_image(read("text_to_image"), "prompted", EARLIER)


def text_to_image_beginner(read: Read) -> str:
    return text_to_image(read("text_to_image"), "prompted", BEGINNER)


def text_to_image_beginner_less_cfg(read: Read) -> str:
    return _above_baseline(read("text_to_image"), BEGINNER)


def text_to_image_pupil(read: Read) -> str:
    return text_to_image(read("text_to_image"), "prompted", PUPIL)


def text_to_image_pupil_less_cfg(read: Read) -> str:
    return _above_baseline(read("text_to_image"), PUPIL)


def text_to_image_pupil_scales(read: Read) -> str:
    return _over_scales(read("text_to_image"), PUPIL)


def gentle_cfg(read: Read) -> str:
    """How far ERG as its node comes is from CFG at each scale, after each training."""
    trainings = read("gentle_cfg")["trainings"]
    return table(
        "|".join(["I-ERG less", "training", *OF_INTEREST]),
        (
            (name, f"seed {seed}", *_differences(row, OF_INTEREST, sign=-1))
            for seed, of in trainings.items()
            for name, row in of["rows"].items()
            if name != of["baseline"]
        ),
    )


def text_to_image_learner(read: Read) -> str:
    return text_to_image(read("text_to_image"), "prompted", LEARNER)


def text_to_image_unet(read: Read) -> str:
    return text_to_image(read("text_to_image"), "prompted", UNET)


def text_to_image_unet_less_cfg(read: Read) -> str:
    return _above_baseline(read("text_to_image"), UNET)


def text_to_image_unet_scales(read: Read) -> str:
    return _over_scales(read("text_to_image"), UNET)


def text_to_image_unconditional(read: Read) -> str:
    return _unprompted(read("text_to_image"), BEGINNER)


def text_to_image_shipped_unconditional(read: Read) -> str:
    return _unprompted(read("text_to_image"), SHIPPED)


def _unprompted(found: dict, regime: str) -> str:
    """Without a prompt, and each distance beside that without guidance, as the paper's."""
    plain, further = text_to_image(found, "unconditional", regime).split("\n\n")
    rows = found["regimes"][regime]["unconditional"]["rows"]

    def ratio(distances: dict[str, float], name: str) -> str:
        return f"{distances[name] / distances['none']:.2f}" if name in distances else "–"

    ours = {name: row["Fréchet"]["value"] for name, row in rows.items()}
    head, line, *lines = plain.splitlines()
    names = [*rows, REAL]
    more = (f" {ratio(ours, name)} | {ratio(UNPROMPTED_IN_THE_PAPER, name)} |" for name in names)
    beside = [f"{head} Fréchet / none | in the paper |", f"{line}---|---|", *map("".join, zip(lines, more))]
    return "\n".join([*beside, "", further])


def text_to_image_shipped_scales(read: Read) -> str:
    return _over_scales(read("text_to_image"), SHIPPED)


def text_to_image_scales(read: Read) -> str:
    return _over_scales(read("text_to_image"), EARLIER)


def text_to_image_beginner_scales(read: Read) -> str:
    return _over_scales(read("text_to_image"), BEGINNER)


def text_to_image_settings(read: Read) -> str:
    """What each method's search chose, in all tables."""
    regimes = read("text_to_image")["regimes"]
    return table(
        "model | method | w | ERG | ERG Text Encoder | besides",
        (
            (title, name, *_settings(setting))
            for (regime, kind), title in TITLES.items()
            for name, setting in regimes[regime][kind]["settings"].items()
            if name != "none"
        ),
    )


def _w(chosen: dict) -> str:
    """As drawing.py's Setting.scale, without ComfyUI, which that needs."""
    return f"{chosen['cfg'] + (chosen['apg'] is not None):.2f}"


def _settings(chosen: dict) -> tuple[str, str, str, str]:
    """w, and the inputs of ERG, of ERG Text Encoder and of what else there is, as the search named them."""
    erg, clip, cads, apg, rival = (chosen[name] or {} for name in ("erg", "clip", "cads", "apg", "rival"))
    window = f"{erg.get('start_percent', 0):.0%} to {erg.get('end_percent', 1):.0%}"
    flat = f"f {erg['flatness']:g}" if "flatness" in erg else f"τ {erg.get('temperature', 1):g}"
    parts = [flat, f"layers {erg['layers']}"] if "layers" in erg else ["a window for CFG"]
    parts += [f"{sign} {erg[name]:.2g}" for sign, name in (("γ", "step_size"), ("scale", "scale")) if name in erg]
    besides = [f"s {cads['noise_scale']:g}, τ1 {cads['tau1']:g}, τ2 {cads['tau2']:g}"] if cads else []
    besides += [f"η {apg['eta']:g}, r {apg['norm_threshold']:g}, β {apg['momentum']:g}"] if apg else []
    besides += [f"scale {rival['scale']:.2g}, layers {rival['layers']}"] if rival else []
    besides += [f"σ {rival['sigma']:g}"] if "sigma" in rival else []
    return (
        _w(chosen),
        ", ".join([*parts, window]) if erg else "",
        f"τc {clip['temperature']:g}, layers {clip['layers']}" if clip else "",
        ", ".join(besides),
    )


def _over_scales(found: dict, regime: str) -> str:
    """The measures of each method over its scales, the other inputs as its search chose them."""
    tables = found["regimes"][regime]["prompted"]
    measures, fronts = (tables["consistency"], "density", "coverage"), tables["fronts"]
    none, fronts = fronts["none"], {name: front for name, front in fronts.items() if name != "none"}
    fronts = {name: none | front for name, front in fronts.items()}
    scales = sorted({w for front in fronts.values() for w in front}, key=float)

    def cell(front: dict, w: str) -> str:
        return joined((front[w][measure]["value"] for measure in measures), ".2f") if w in front else "–"

    return table(
        "|".join(["w", *(f"{name}: {' / '.join(measures)}" for name in fronts)]),
        ((w, *(cell(front, w) for front in fronts.values())) for w in scales),
    )


def encoder_as_strong(read: Read) -> str:
    """How far C-ERG is from CFG where its first step of guidance is as long."""
    found = read("encoder_entropy")
    measures = ("asked", "exact", "clean", "density", "coverage", "density, untrained", "Fréchet", "diversity")

    def cosine(name: str) -> str:
        temperature = name.rpartition("τc ")[2]
        return f"{found['rows'][temperature]['cosine']:.2f}" if temperature in found["rows"] else "–"

    return table(
        "|".join([f"less {found['baseline']}", "w", "cosine", *measures]),
        (
            (name, f"{found['scales'][name]:.1f}", cosine(name), *_differences(row, measures))
            for name, row in found["drawn"].items()
            if name != found["baseline"]
        ),
    )


OF_PICTURES = (
    text_to_image_prompted, text_to_image_less_cfg, text_to_image_earlier, text_to_image_scales, text_to_image_unconditional,
    text_to_image_beginner, text_to_image_beginner_less_cfg, text_to_image_beginner_scales, text_to_image_learner,
    text_to_image_shipped_scales, text_to_image_settings, text_to_image_pupil, text_to_image_pupil_less_cfg,
    text_to_image_pupil_scales, text_to_image_beside_paper, gentle_cfg,
    text_to_image_shipped_unconditional, text_to_image_unet, text_to_image_unet_less_cfg, text_to_image_unet_scales,
    encoder_as_strong,
)  # fmt: skip
