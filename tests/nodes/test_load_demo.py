"""The demo loader: genuine objects, and damaged weights."""

import shutil
import sys
from itertools import product

import comfy.ldm.flux.model
import comfy.sd
import comfy.taesd.taesd
import pytest
from comfy.clip_model import CLIPTextModel
from comfy.model_patcher import ModelPatcher
from safetensors.torch import load_file, save_file


@pytest.fixture
def loader(node, demo):
    return next(module for name, module in sys.modules.items() if name.endswith(".demo.loader"))


def test_objects_are_comfyuis_own(demo):
    model, clip, vae = demo
    assert isinstance(model, ModelPatcher)
    assert type(model.model.diffusion_model) is comfy.ldm.flux.model.Flux
    assert isinstance(clip, comfy.sd.CLIP)
    assert isinstance(clip.cond_stage_model.clip_l.transformer, CLIPTextModel)
    assert isinstance(vae, comfy.sd.VAE)
    assert type(vae.first_stage_model) is comfy.taesd.taesd.TAESD


def test_weights_fit_in_the_budget(loader):
    assert sum(path.stat().st_size for path in loader.WEIGHTS.rglob("*.*")) < 16e6


DAMAGES = ("missing", "truncated", "fewer", "reshaped")


@pytest.mark.parametrize(
    ("name", "damage"), [*product(("diffusion", "text", "vae"), DAMAGES), ("vae", "without metadata")]
)
def test_missing_and_damaged_weights(node, loader, monkeypatch, tmp_path, name, damage):
    shutil.copytree(loader.WEIGHTS, tmp_path, dirs_exist_ok=True)
    path = tmp_path / f"{name}.safetensors"
    weights = load_file(path)
    path.unlink()
    if damage == "truncated":
        save_file(weights, path)
        path.write_bytes(path.read_bytes()[:-1000])
    metadata = loader.read_weights("vae")[1]
    if damage == "fewer":
        weights.popitem()
        save_file(weights, path, metadata)
    if damage == "reshaped":
        key = max(weights, key=lambda key: weights[key].numel())
        save_file({**weights, key: weights[key].flatten()}, path, metadata)
    if damage == "without metadata":
        save_file(weights, path)
    monkeypatch.setattr(loader, "WEIGHTS", tmp_path)
    with pytest.raises(RuntimeError, match=f"{name}.safetensors.*(missing or damaged|does not fit)"):
        node("EntropyGuidanceLoadDemo")


def test_text_encoder_takes_any_text(demo, encode):
    for text in ("", "un cercle rouge, 赤い円 🙂", "(a red:1.2) circle", "a red circle " * 30):
        assert encode(demo[1], text)[0][0].isfinite().all()
