"""Plot Guidance: small pictures of latents, and which panels a plot has."""

import warnings

import comfy.latent_formats
import pytest
import torch

from benchmarks.in_process import pack_module
from tests.nodes.recording.test_recording import branch_of_its_own, classified, plain

LEGIBLE = 1200  # pixels wide


def plotted(node, model, prompts, sample, **options):
    recorded, recorder = node("EntropyGuidanceRecord", model=model)
    drawn = sample(recorded, *prompts, **options)
    return node("EntropyGuidancePlot", record=recorder, latent={"samples": drawn})[0]


@pytest.fixture
def words(monkeypatch):
    """All that is written on the plots that are drawn from now on."""
    from matplotlib.text import Text

    found, draw = set(), Text.draw

    def drawing(text, renderer):
        found.add(text.get_text())
        return draw(text, renderer)

    monkeypatch.setattr(Text, "draw", drawing)
    return found


def test_letters_that_one_font_has_not_are_another_ones(monkeypatch):
    figure = pack_module("nodes.drawing.figure")
    monkeypatch.setattr(figure, "FONTS", ("no such font", "STIXGeneral"))
    figure._installed_fonts.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as: glyph missing
        picture = figure.drawn(lambda drawing: drawing.text(0.5, 0.5, "a\u20dd"), 1, 1, dpi=50)
    assert picture.min() < 128
    figure._installed_fonts.cache_clear()


@pytest.mark.parametrize(
    ("chain", "cfg", "there", "not_there"),
    [
        (plain, 3.0, {"Size of guidance", "positive branch", "negative branch"}, {"Classifier: its certainty"}),
        (plain, 1.0, {"Guidance", "none: cfg is 1, and no other node guides"}, {"Size of guidance", "negative branch"}),
        (branch_of_its_own, 1.0, {"Size of guidance", "weak (ERG) branch"}, {"negative branch"}),
        (classified, 1.0, {"Classifier: its certainty", "Size of its gradient", "Size of guidance"}, set()),
    ],
)
def test_a_plot_has_the_panels_of_what_was_seen(node, demo, prompts, sample, words, chain, cfg, there, not_there):
    picture = plotted(node, chain(node, demo[0]), prompts, sample, cfg=cfg, batch=2)
    assert picture.shape[0] == 1 and picture.shape[2:] == (LEGIBLE, 3) and 0 <= picture.min() and picture.max() <= 1
    assert {"step 1", "result", "Attention entropy by layer"} | there <= words
    assert not not_there & words


def test_a_batch_says_what_its_lines_are(node, demo, prompts, sample, words):
    plotted(node, demo[0], prompts, sample, batch=3)
    assert any("the mean of 3 pictures, thin ones: each" in text.replace("\n", " ") for text in words)


def test_one_step(node, demo, prompts, sample, words):
    plotted(node, demo[0], prompts, sample, steps=1)
    assert "result" in words and "step 1" not in words


def test_the_same_record_draws_the_same_plot(node, demo, prompts, sample):
    recorded, recorder = node("EntropyGuidanceRecord", model=demo[0])
    drawn = {"samples": sample(recorded, *prompts)}
    plots = [node("EntropyGuidancePlot", record=recorder, latent=drawn)[0] for _ in range(2)]
    assert torch.equal(*plots)


def small_picture(latent, latent_format):
    return pack_module("nodes.recording.small_picture").small_picture(latent, latent_format)


def test_pixels_are_themselves(node):
    pixels = torch.rand(2, 3, 8, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    picture = small_picture(pixels, comfy.latent_formats.ChromaRadiance())
    torch.testing.assert_close(picture.float() / 255, (pixels[0].movedim(0, -1) + 1) / 2, rtol=0, atol=0.003)


@pytest.mark.parametrize("name", ["SD15", "SDXL", "SD3", "Flux", "Wan21", "HunyuanVideo", "Flux2"])
def test_a_latent_is_drawn_as_comfyui_previews_it(node, name):
    from latent_preview import Latent2RGBPreviewer  # ComfyUI's

    latent_format = getattr(comfy.latent_formats, name)()
    shape = (1, latent_format.latent_channels, *(1,) * (latent_format.latent_dimensions - 2), 16, 24)
    latent = 0.5 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    previewer = Latent2RGBPreviewer(
        latent_format.latent_rgb_factors,
        latent_format.latent_rgb_factors_bias,
        latent_format.latent_rgb_factors_reshape,
    )
    expected = torch.tensor(list(previewer.decode_latent_to_preview(latent).tobytes())).float()
    picture = small_picture(latent, latent_format)
    assert (picture.flatten().float() - expected).abs().max() <= 1  # ComfyUI rounds down


def test_large_ones_are_shrunk_and_sound_is_no_picture(node):
    flux, sound = comfy.latent_formats.Flux(), comfy.latent_formats.StableAudio1()
    assert small_picture(torch.zeros(1, 16, 512, 256), flux).shape == (128, 64, 3)
    assert small_picture(torch.zeros(1, 64, 512), sound) is None
