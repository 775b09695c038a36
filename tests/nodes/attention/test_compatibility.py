"""I-ERG on every diffusion model of ComfyUI: small networks of its own classes, run as a sampler runs them."""

import re
import warnings
from functools import cache

import comfy.samplers
import pytest
import torch

from benchmarks import compatibility, small_networks
from benchmarks.one_step import predict

# What reads the condition before it meets the picture, and is left alone on purpose.
READERS = re.compile(
    r"context_refiner|context_processor|siglip_refiner|ref_image_refiner|token_refiner|text_transformer_blocks|txtfusion"
    r"|embeddings_connector|t\*_y_embedder|llm_adapter|pooler|visual\.|(music|lyric|timbre)_encoder|tokenizer"
    r"|language_model\.layers\.\*\.self_attn"  # HiDream-O1 runs the prompt's part of its attention apart
)
MODELS = [name for name in compatibility.model_names() if name in small_networks.NETWORKS]


@cache
def found(name: str) -> compatibility.Findings:
    with torch.inference_mode():
        return compatibility.examine(name)


@pytest.mark.parametrize("name", MODELS)
def test_every_attention_of_the_picture_is_reached(node, name):
    """The positive branch is kept, the negative one changes, and what is left alone reads the condition."""
    findings = found(name)
    assert findings.works, findings
    assert all(READERS.search(module) for module in findings.untouched), findings
    assert findings.energy == "yes"


@pytest.mark.parametrize("name", MODELS)
def test_blocks_that_are_shared_yield_the_same(node, name):
    findings = found(name)
    assert findings.same_shared
    assert (findings.shared > 0) != (name in compatibility.UNSHARED), findings


def one_model_of_each_network() -> list[str]:
    return list({found(name).network: name for name in reversed(MODELS)}.values())


def erg(node, model):
    return node("EntropyGuidanceERG", model=model, temperature=0.01, layers="all")[0]


def single_layers_can_be_chosen(node, name) -> bool:
    small, model = small_networks.NETWORKS[name], small_networks.build(name)
    latent, conditions = small.latent(small.most), small.conditions()
    ordinary = compatibility.settled(model, conditions, latent)
    seen, layers = [ordinary[1]], range(found(name).layers)
    for layer in sorted({*layers[:3], *layers[-3:]}):
        guided = node("EntropyGuidanceERG", model=model, temperature=0.01, layers=str(layer))[0]
        positive, negative = predict(guided, conditions, latent)
        if not compatibility.is_kept(model, ordinary[0], positive):
            return False
        # WanDancer's injectors of music (layers 1 and 3) attend to a single key, at any temperature.
        one_key = name == "WAN22_WanDancer" and layer in (1, 3)
        if any(torch.equal(negative, other) for other in seen) != one_key:
            return False
        seen.append(negative)
    return True


def a_branch_alone_is_what_it_is_in_a_batch(node, name) -> bool:
    """Memory decides whether ComfyUI runs the branches together. Compared with what that does without ERG."""
    small, model = small_networks.NETWORKS[name], small_networks.build(name)
    positive, negative = small.conditions()

    def differences(model) -> list[float]:
        latent = small.latent(small.most)
        together = predict(model, (positive, negative), latent)
        alone = predict(model, (positive, None), latent)[0], predict(model, (None, negative), latent)[1]
        return [(a - b).abs().max().item() for a, b in zip(together, alone)]

    return all(b < 2 * a + 1e-4 for a, b in zip(differences(model), differences(erg(node, model)), strict=True))


def works_in_bfloat16(node, name) -> bool:
    small, model = small_networks.NETWORKS[name], small_networks.build(name, torch.bfloat16)
    ordinary, weak = (predict(m, small.conditions(), small.latent()) for m in (model, erg(node, model)))
    return (
        compatibility.is_kept(model, ordinary[0], weak[0])
        and not torch.equal(ordinary[1], weak[1])
        and weak[1].isfinite().all().item()
    )


class OnePrediction(comfy.samplers.Sampler):
    """A sampler whose result is the guided prediction for its noise."""

    def sample(self, guider, sigmas, extra_args, callback, noise, *_, **__):
        return guider(noise, sigmas[0].expand(len(noise)), **extra_args)


def guided(model, conditions, latent, cfg: float) -> torch.Tensor:
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(*conditions)
    guider.set_cfg(cfg)
    prediction = guider.sample(latent, latent * 0, OnePrediction(), torch.tensor([0.6, 0.0]))
    parts = prediction.unbind() if prediction.is_nested else [prediction]
    return torch.cat([part.flatten() for part in parts])


def a_branch_of_its_own(node, name) -> bool:
    """D_cfg + s (D_pos − D_weak) from evaluations of pairs; as exact as CFG itself is from such pairs, by twice."""
    small, model = small_networks.NETWORKS[name], small_networks.build(name)
    (positive, negative), latent = small.conditions(), small.latent(small.most)
    by_itself = node("EntropyGuidanceERG", model=model, temperature=0.01, layers="all", scale=0.7)[0]

    def in_pair(model, condition) -> torch.Tensor:
        return guided(model, (condition, condition), latent, 0.0)

    strong, away, weak = in_pair(model, positive), in_pair(model, negative), in_pair(erg(node, model), positive)
    cfg = guided(model, (positive, negative), latent, 2.5)
    rounding = (cfg - (away + 2.5 * (strong - away))).abs().max()
    errors = (
        guided(by_itself, (positive, negative), latent, 2.5) - (cfg + 0.7 * (strong - weak)),
        guided(by_itself, (positive, negative), latent, 1.0) - (strong + 0.7 * (strong - weak)),
    )
    changed = not torch.equal(guided(by_itself, (positive, negative), latent, 2.5), cfg)
    return changed and all(error.abs().max() < 2 * rounding + 1e-4 * cfg.abs().max() for error in errors)


@pytest.mark.parametrize(
    "holds",
    [single_layers_can_be_chosen, a_branch_alone_is_what_it_is_in_a_batch, works_in_bfloat16, a_branch_of_its_own],
)
def test_on_every_network(node, holds):
    assert [name for name in one_model_of_each_network() if not holds(node, name)] == []


def test_the_page_says_what_was_found(node):
    """Of every model that this ComfyUI has, and that has a small network."""
    page = compatibility.PAGE.read_text(encoding="utf-8")
    findings = {name: found(name) for name in MODELS}
    others, version = compatibility.rows_of_others(page), compatibility.version_of(page)
    untested = [row for row in page.splitlines() if "| not yet tested |" in row]
    measured = compatibility.table(findings, {*others, *untested}, version)
    assert page == measured, "run python -m benchmarks.compatibility"
    assert len({f.network for f in findings.values()}) >= 52
    if new := sorted({*compatibility.model_names()} - findings.keys()):
        warnings.warn(f"not yet tested, for want of a small network: {', '.join(new)}", stacklevel=1)


def test_rows_of_another_comfyui_stay(node):
    page = compatibility.table(
        {"SD15": found("SD15")}, ["| NetworkOfTomorrow (9.9) | Tomorrow | yes | 2 | 4 |  | yes | 1 of 2 |"]
    )
    assert compatibility.rows_of_others(page) == [
        "| NetworkOfTomorrow (9.9) | Tomorrow | yes | 2 | 4 |  | yes | 1 of 2 |"
    ]
    assert compatibility.table({"SD15": found("SD15")}, compatibility.rows_of_others(page)) == page


def test_a_model_that_nobody_has_tried_yet_is_said(node):
    """As a class that a new ComfyUI adds, and this table does not know."""
    page = compatibility.table({"SD15": found("SD15"), "ModelOfTomorrow": None})
    assert "| ? | ModelOfTomorrow | not yet tested |" in page
    assert "| UNetModel | SD15 | yes | 8 | 16 |" in page


def test_linear_attention_is_said_once(node, caplog):
    model = small_networks.build("ACEStep")
    caplog.set_level("INFO")
    once = node("EntropyGuidanceERG", model=model)[0]
    node("EntropyGuidanceERG", model=once)
    assert caplog.text.count("its self-attention is linear, which has no temperature") == 1
