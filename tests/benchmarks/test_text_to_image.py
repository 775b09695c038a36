"""The text-to-image tables: rival methods against what they are defined as, and that searches and batches come again."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from hashlib import sha256
from pathlib import Path
from random import Random

import optuna
import pytest
import torch
import torch.nn.functional as F

from benchmarks import (
    attention_entropy,
    class_gradients,
    encoder_entropy,
    flatness_figure,
    gradient_norm,
    in_process,
    initial_velocity,
    results,
)
from benchmarks.demo_models import CHECKPOINT
from benchmarks.initial_velocity import METHODS as OF_VELOCITY
from benchmarks.sensitivity import __main__ as sensitivity_command
from benchmarks.sensitivity import sweeps
from benchmarks.text_to_image import kept, measures, rivals
from benchmarks.text_to_image.drawing import SAME, Setting, predict
from benchmarks.text_to_image.joined import check_alike, joined
from benchmarks.text_to_image.methods import CLIP_DEFAULTS, ERG_DEFAULTS, METHODS, UNCONDITIONAL
from benchmarks.text_to_image.search import START, Search, find
from benchmarks.text_to_image.tables import text_to_image
from benchmarks.tolerance import assert_agree
from demo.scenes import render, sample_scene
from tools.environment import DEV, REPOSITORY

CAPTIONS = ["a red circle", "a blue square"]
NUMBER = re.compile(r"-?\d+\.\d+")


@pytest.fixture(scope="module", autouse=True)
def nodes():
    in_process.load_nodes()


def attention(q, k, v, heads, **_):
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def queries(seed: int = 0):
    """q, k, v [2, 3 heads, 20 words and 64 tokens, 4]."""
    return torch.randn(3, 2, 3, 84, 4, generator=torch.Generator().manual_seed(seed))


def test_perturbed_attention_gives_a_picture_its_own_values():
    q, k, v = queries()
    out = rivals.attend_to_itself(attention, q, k, v, 3)
    assert torch.equal(out[:, 20:], v[:, :, 20:].transpose(1, 2).flatten(2))
    assert torch.equal(out[:, :20], attention(q, k, v, 3)[:, :20])


def test_energy_smoothed_without_end_has_one_query():
    q, k, v = queries()
    before = q.clone()
    out = rivals.smooth_queries(attention, q, k, v, 3, sigma=float("inf"))
    mean = q[:, :, 20:].mean(2, keepdim=True).expand(-1, -1, 64, -1)
    assert torch.allclose(out[:, 20:], attention(mean, k, v, 3), atol=1e-6)
    assert torch.equal(q, before)


def test_a_little_smoothing_is_none():
    q, k, v = queries()
    out = rivals.smooth_queries(attention, q, k, v, 3, sigma=0.1)
    assert torch.allclose(out, attention(q, k, v, 3), atol=1e-5)


@pytest.mark.parametrize("method", ["PAG", "SEG", "SAG"])
def test_rivals_guide_in_proportion_to_their_scale_and_leave_other_clones(method):
    def rival(scale):
        return Setting(2.0, rival={"method": method, "scale": scale, "layers": "40%-60%", "sigma": 2.0})

    plain = predict("demo model", Setting(2.0), CAPTIONS, 0)
    one, two = (predict("demo model", rival(scale), CAPTIONS, 0) - plain for scale in (0.5, 1.0))
    assert one.abs().mean() > 1e-3
    assert torch.allclose(2 * one, two, atol=1e-4)  # of float32's rounding in sums of some ten
    assert torch.equal(plain, predict("demo model", Setting(2.0), CAPTIONS, 0))


@pytest.mark.parametrize("sigma", [1.0, 0.75, 0.5])
def test_sag_spoils_the_pictures_share_of_what_a_flow_model_sees(monkeypatch, sigma):
    """x = (1 − σ) x0 + σ n: where all is noise, a spoilt picture changes nothing."""
    asked, x, plain = [], torch.randn(2, 4, 16, 16), torch.randn(2, 4, 16, 16)

    def evaluate(given, condition, seen, override=None):
        asked.append(seen)
        if override is not None:
            override(attention, *queries(), 3)
        return plain

    monkeypatch.setattr(rivals, "_evaluate", evaluate)
    monkeypatch.setattr(rivals, "_in_layers", lambda look, layers, *args, **kwargs: look(*args, **kwargs))
    model = rivals.add(in_process.run_node("EntropyGuidanceLoadDemo")[0], "SAG", 1.0, "all", 2.0)
    (guide,) = model.model_options["sampler_post_cfg_function"]
    blurred = guide({"input": x, "cond": None, "denoised": plain, "sigma": torch.full((2,), sigma)})
    assert (blurred - plain).abs().max() > 0.1  # what is worse is as good as the plain prediction here
    assert torch.allclose(asked[1], x + (1 - sigma) * (blurred - plain), atol=1e-5)


def test_scale_one_is_no_guidance():
    plain = predict("demo model", Setting(), CAPTIONS, 0)
    for name, setting in OF_VELOCITY.items():
        assert torch.allclose(predict("demo model", replace(setting, cfg=1.0), CAPTIONS, 0), plain, atol=1e-5), name


def has_earlier_checkpoint() -> bool:
    command = ["git", "cat-file", "-e", f"{CHECKPOINT}:demo/weights/diffusion.safetensors"]
    return (
        shutil.which("git") is not None and subprocess.run(command, cwd=REPOSITORY, capture_output=True).returncode == 0
    )


@pytest.mark.parametrize("space", [*METHODS.values(), *UNCONDITIONAL.values()], ids=[*METHODS, *UNCONDITIONAL])
def test_every_method_can_draw_what_its_search_starts_from(space):
    setting = space(optuna.trial.FixedTrial(START))
    if setting.weak_model and not has_earlier_checkpoint():
        pytest.skip("a clone without history has no earlier checkpoint")
    assert predict("demo model", setting, CAPTIONS, 0).isfinite().all()


@pytest.mark.parametrize("w", [1.5, 2.0, 3.0])
def test_apg_that_changes_nothing_is_cfg_at_the_same_scale(w):
    """Where core's node takes another cfg for it, and 1 would be without a negative branch."""
    unchanged = {"eta": 1.0, "norm_threshold": 0.0, "momentum": 0.0}
    apg = Setting(apg=unchanged).at(w)
    assert apg.scale == pytest.approx(w)
    expected = predict("demo model", Setting(w), CAPTIONS, 0)
    assert_agree(predict("demo model", apg, CAPTIONS, 0), expected)
    assert not torch.equal(expected, predict("demo model", Setting(), CAPTIONS, 0))


def test_erg_does_not_lead_away_from_a_prompt_that_has_noise():
    """As it does where the branches read the prompt with another noise each, or the weak one the prompt itself."""
    captions = [scene.caption for scene in scenes_of(16)]

    def added(**setting) -> torch.Tensor:
        weaker, stronger = (predict("demo model", Setting(cfg, **setting), captions, 0) for cfg in (1.0, 2.0))
        return (stronger - weaker).flatten()

    towards_the_prompt = added()

    def of(apply_to: str) -> tuple[float, float]:
        """Cosine with CFG's direction, and the length relative to it."""
        noise = {"noise_scale": 1.0, "tau1": 0.1, "tau2": 0.1, "apply_to": apply_to}  # alone in the first step
        erg = added(negative=SAME, erg={"temperature": 0.3, "layers": "40%-50%"}, cads=noise)
        cosine = F.cosine_similarity(erg, towards_the_prompt, dim=0).item()
        return cosine, (erg.norm() / towards_the_prompt.norm()).item()

    (away, far), (apart, as_far), (_, near) = map(of, ("positive", "both", "both, same noise"))
    assert away < -0.5 and apart < -0.1
    assert near < 0.2 * min(far, as_far)


def test_the_nodes_as_they_come_are_compared():
    assert ERG_DEFAULTS.items() <= in_process.defaults_of("EntropyGuidanceERG").items()
    assert CLIP_DEFAULTS.items() <= in_process.defaults_of("EntropyGuidanceCLIP").items()


def test_every_value_of_a_sweep_is_one_that_its_node_takes():
    for point, setting in (sweeps.of_inputs() | sweeps.of_encoder_temperature()).items():
        assert predict("demo model", setting, CAPTIONS[:1], 0).isfinite().all(), point


def scenes_of(count: int):
    rng = Random("measures")
    return [sample_scene(rng, held_out=True) for _ in range(count)]


@pytest.fixture
def plain_eyes(monkeypatch):
    """Colours of quarters in the place of a trained judge's features."""
    monkeypatch.setattr(
        measures, "_eyes", lambda pictures: F.adaptive_avg_pool2d(pictures, 2).flatten(1), raising=False
    )


@pytest.mark.usefixtures("plain_eyes")
def test_real_pictures_are_exact_clean_and_on_the_palette():
    scenes = scenes_of(24)
    seen = measures.look(torch.stack([*map(render, scenes)]), scenes, [*range(12), *range(12)])
    found = measures.measure(seen, seen)
    whole = ("asked", "exact", "relation", "clean", "coverage", "coverage, untrained", "recall")
    assert {found[name] for name in whole} == {1}
    assert found["clipped"] == 0 and found["off palette"] < 0.01
    assert found["Fréchet"] == pytest.approx(0, abs=1e-3) and found["diversity"] > 0


@pytest.mark.usefixtures("plain_eyes")
def test_methods_that_draw_the_same_do_not_differ_and_values_have_errors():
    scenes = scenes_of(48)
    reference, drawn, rolled = (
        measures.look(torch.stack([*map(render, pictures)]), scenes, [*range(24), *range(24)])
        for pictures in (scenes_of(48), scenes, scenes[5:] + scenes[:5])
    )
    found = measures.compare(reference, {"CFG": drawn, "another": drawn, "rolled": rolled}, "CFG")
    assert all(row["above"] == row["error above"] == 0 for row in found["another"].values())
    exact = found["rolled"]["exact"]
    assert exact["above"] == exact["value"] - 1 < -0.5
    assert (
        exact["error above"] == pytest.approx(exact["error"]) and exact["error"] > 0
    )  # against one that is always exact
    assert found["rolled"]["coverage"]["value"] == 1


@pytest.mark.usefixtures("plain_eyes")
def test_other_captions_are_seldom_exact():
    scenes = scenes_of(24)
    seen = measures.look(torch.stack([*map(render, scenes)]).roll(1, 0), scenes, [*range(24)])
    assert seen.exact.mean() < 0.3


def test_batches_of_a_purpose_share_captions_by_seed_and_one_in_eight_has_a_single_one():
    def captions(purpose, number):
        return [scene.caption for scene in kept.Job("demo model", Setting(), purpose, number, 8).scenes]

    assert captions("test", 0) == captions("test", kept.SEEDS - 1) != captions("test", kept.SEEDS)
    assert captions("test", 0) != captions("tuning", 0)
    assert len(set(captions("test", kept.SEEDS * (kept.ONE_CAPTION - 1)))) == 1


def test_a_batch_is_kept_under_its_setting(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "FOLDER", tmp_path)
    job = kept.Job("demo model", Setting(2.0), "test", 0, 2)
    assert job.file != replace(job, setting=Setting(2.0, SAME)).file
    before = job.file
    assert before == kept.Job("demo model", Setting(2.0), "test", 0, 2).file
    monkeypatch.setattr(kept, "fingerprint", lambda regime: "other weights")
    assert job.file != before


class Mistaken(Search):
    """On one batch larger scales look better, on more they are worse."""

    def measured(self, setting, batches):
        gain = setting.cfg if batches == 1 else -setting.cfg
        return {"setting": setting, "pictures": batches * kept.BATCH, "gain": gain}


def test_the_best_of_a_search_are_measured_again_on_more_pictures():
    found = find(Mistaken("demo model", "CFG", True, 6, 1, 3, 4, 8, "exact", 32))
    best, others = ([row["setting"].cfg for row in rows] for rows in (found[:3], found[3:]))
    assert [row["pictures"] for row in found] == [4 * kept.BATCH] * 3 + [kept.BATCH] * 3
    assert best == sorted(best) and others == sorted(others, reverse=True) and min(best) > max(others)


def test_a_table_grows_by_methods_that_are_made_alike():
    first = {"command": "one", "date": "then", "versions": {}, "trials": 2, "baseline": "CFG"}
    later = first | {"command": "two", "date": "now"}
    by_method = {"tried": {}, "fronts": {}}
    cfg, again = ({"exact": {"value": value, "error": 0.02}} for value in (0.8, 0.801))
    earlier = first | by_method | {"settings": {"none": 1, "CFG": 2}, "rows": {"none": {}, "CFG": cfg}}
    new = later | by_method | {"settings": {"ERG": 3, "CFG": 2}, "rows": {"ERG": {}, "CFG": again}}
    found = joined(earlier, new, METHODS)
    assert found["rows"] == {"none": {}, "CFG": cfg, "ERG": {}} and [*found["settings"]] == ["none", "CFG", "ERG"]
    assert found["command"] == "two" and [run["command"] for run in found["earlier runs"]] == ["one"]
    assert len(joined(found, new | {"command": "three"}, METHODS)["earlier runs"]) == 2
    again["exact"]["value"] = 0.82
    with pytest.raises(ValueError, match="CFG is measured otherwise .*exact"):
        joined(earlier, new, METHODS)


def test_a_row_grows_by_measures_that_it_does_not_have_yet():
    table = {"versions": {}, "baseline": "CFG", "tried": {}, "fronts": {}, "settings": {"CFG": 1, "ERG": 2}}
    exact, colours = ({"value": value, "error": 0.02} for value in (0.8, 0.1))
    earlier = table | {"rows": {"CFG": {"exact": exact}, "ERG": {"exact": exact}}}
    new = table | {"settings": {"CFG": 1}, "rows": {"CFG": {"exact": exact | {"value": 0.801}, "off palette": colours}}}
    assert joined(earlier, new, METHODS)["rows"] == {
        "CFG": {"exact": exact, "off palette": colours},
        "ERG": {"exact": exact},
    }
    new["rows"]["ERG"] = {"exact": exact | {"value": 0.9}}
    with pytest.raises(ValueError, match="ERG is measured otherwise"):
        joined(earlier, new, METHODS)


def test_what_a_row_does_not_have_is_left_open():
    of = {"value": 0.5, "error": 0.1, "above": 0.2, "error above": 0.1}
    rows = {"CFG": {"asked": of}, "ERG": {"asked": of, "density": of}}
    tables = {"rows": rows, "real pictures": {"asked": of, "density": of}, "settings": {}, "baseline": "CFG"}
    found = {"regimes": {"demo model": {"prompted": tables}}}
    assert "| CFG | – | 0.500 ± 0.202 | – |" in text_to_image(found, "prompted")


def test_a_table_made_otherwise_is_not_joined():
    check_alike({"trials": 2, "rows": {}}, {"trials": 2}, "a table")
    with pytest.raises(ValueError, match="no table 'a table'"):
        check_alike(None, {}, "a table")
    with pytest.raises(ValueError, match="trials: 2, now 3.*networks: None, now a"):
        check_alike({"trials": 2}, {"trials": 3, "networks": "a"}, "a table")


def test_a_quick_run_writes_results_and_figures():
    """From nothing to tables: search, rows, fronts, pictures; nothing into docs."""
    command = [sys.executable, "-m", "benchmarks.text_to_image", "--quick", "--workers", "1"]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    folder = DEV / "benchmarks" / "quick"
    found = json.loads((folder / "text_to_image.json").read_text())
    tables = found["regimes"]["demo model"]
    assert tables["prompted"]["rows"].keys() == {"none", "CFG", "I-ERG, same prompt"}
    assert tables["unconditional"]["rows"].keys() == {"none", "I-ERG"}
    assert "| I-ERG, same prompt | " in run.stdout
    assert tables["prompted"]["fronts"].keys() == {"none", "CFG"}
    assert [row["pictures"] for row in tables["prompted"]["tried"]["CFG"]] == [32, 32]
    pictures = ("text-to-image", "unconditional", "text-to-image-fronts")
    assert all((folder / f"{name}-demo-model.png").stat().st_size > 10_000 for name in pictures)


def test_rows_of_inputs_are_read_as_they_were_written():
    rows = results.read("sensitivity")["rows"]["demo model"]
    before = sensitivity_command._measured_before(results.read("sensitivity"), "demo model")
    assert before[sensitivity_command.NONE] == rows["none"]
    assert before.keys() - {sensitivity_command.NONE} <= {*sweeps.of_inputs(), *sweeps.of_encoder_temperature()}
    again = {point: row for point, row in before.items() if len(point) == 3}
    assert sensitivity_command._nested(again) == rows["inputs"]


def test_a_setting_without_what_came_later_keeps_its_batches():
    setting = Setting(1.5, guider=None)
    older = {name: value for name, value in vars(setting).items() if name != "guider"}
    how = [
        older,
        8,
        kept.BATCH,
        kept.SEEDS,
        kept.ONE_CAPTION,
        kept.fingerprint("demo model"),
        [f.name for f in fields(measures.Seen)],
    ]
    name = sha256(json.dumps(how).encode()).hexdigest()[:16]
    assert kept.Job("demo model", setting, "test", 0, 8).file.parent.name == name
    assert kept.Job("demo model", replace(setting, guider={"scale": 2.0}), "test", 0, 8).file.parent.name != name


def test_a_quick_run_of_the_inputs_writes_results_and_figures():
    command = [sys.executable, "-m", "benchmarks.sensitivity", "--quick", "--workers", "1"]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    folder = DEV / "benchmarks" / "quick"
    found = json.loads((folder / "sensitivity.json").read_text())["rows"]["demo model"]
    assert found["inputs"]["ERG"]["temperature"].keys() == {"0.0", "0.1"}
    assert all((folder / f"{name}-demo-model.png").stat().st_size > 5_000 for name in ("inputs", "encoder-temperature"))


@pytest.mark.parametrize(
    "draw",
    [
        attention_entropy.draw,
        encoder_entropy.draw,
        initial_velocity.draw,
        class_gradients.draw_figure,
        gradient_norm.draw_figure,
        flatness_figure.draw,
    ],
)
def test_figures_come_again_from_the_results(draw, tmp_path):
    name = draw.__module__.rpartition(".")[2].removesuffix("_figure")
    draw(results.read(name), tmp_path)
    kept = results.DOCS / f"{name.replace('_', '-')}.svg"
    (words, numbers), (kept_words, kept_numbers) = map(in_parts, (tmp_path / kept.name, kept))
    assert words == kept_words
    assert numbers == pytest.approx(kept_numbers, abs=0.01)  # processors round otherwise


def in_parts(drawing: Path) -> tuple[list[str], list[float]]:
    """An SVG's words and numbers; not its names of shapes, which are made of all digits of where they are."""
    text = re.sub(r"\b[mp][0-9a-f]{10}\b", "shape", drawing.read_text(encoding="utf-8"))
    return NUMBER.split(text), [*map(float, NUMBER.findall(text))]
