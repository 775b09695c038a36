"""Plot Guidance: small pictures of latents, and which panels a plot has."""

import warnings

import comfy.latent_formats
import pytest
import torch

from benchmarks.in_process import pack_module
from tests.nodes.recording.test_recording import branch_of_its_own, classified, plain

LEGIBLE = 1200  # pixels wide
NO_GUIDANCE = (
    "none: in each step the guided prediction is that of the positive prompt (cfg is 1, both inputs have the same prompt, or no "
    "step is in a node's window)"
)
NO_PULL = "none in the predictions: the sampler itself moves the picture along the classifier's gradient"


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
        (plain, 1.0, {"Guidance", NO_GUIDANCE}, {"Size of guidance", "negative branch"}),
        (branch_of_its_own, 1.0, {"Size of guidance", "weak (ERG) branch"}, {"negative branch"}),
        (classified, 1.0, {"Classifier: its certainty", "Size of its gradient", "Size of guidance"}, set()),
    ],
)
def test_a_plot_has_the_panels_of_what_was_seen(node, demo, prompts, sample, words, chain, cfg, there, not_there):
    picture = plotted(node, chain(node, demo[0]), prompts, sample, cfg=cfg, batch=2)
    assert picture.shape[0] == 1 and picture.shape[2:] == (LEGIBLE, 3) and 0 <= picture.min() and picture.max() <= 1
    words = {text.replace("\n", " ") for text in words}
    assert {"step 1", "result", "Attention entropy by layer"} | there <= words
    assert not not_there & words


def test_what_is_not_guided_says_so(node, demo, prompts, sample, words):
    plotted(node, demo[0], (prompts[0], prompts[0]), sample, cfg=3.0)
    assert NO_GUIDANCE in {text.replace("\n", " ") for text in words}


def test_the_papers_sampler_guides_outside_of_the_predictions(node, demo, prompts, words):
    recorded, recorder = node("EntropyGuidanceRecord", model=demo[0])
    classifier = node("EntropyGuidanceLoadClassifier", classifier_name="entropy-guidance-demo")[0]
    score = node("EntropyGuidanceScore", classifier=classifier, labels="blue")[0]
    drawn = node(
        "SamplerCustom", model=recorded, add_noise=True, noise_seed=1, cfg=1.0, positive=prompts[0], negative=prompts[1],
        sampler=node("EntropyGuidanceDDPMSampler", score=score, vae=demo[2])[0],
        sigmas=node("BasicScheduler", model=recorded, scheduler="simple", steps=2, denoise=1.0)[0],
        latent_image={"samples": torch.zeros(1, 4, 16, 16)},
    )[0]  # fmt: skip
    node("EntropyGuidancePlot", record=recorder, latent=drawn)
    assert NO_PULL in {text.replace("\n", " ") for text in words}


@pytest.fixture
def axes(monkeypatch):
    """Those of the plots that are drawn from now on, by their titles."""
    from matplotlib.axes import Axes

    found, draw = {}, Axes.draw

    def drawing(ax, renderer):
        found[ax.get_title()] = ax
        return draw(ax, renderer)

    monkeypatch.setattr(Axes, "draw", drawing)
    return found


def test_guidance_in_a_few_steps_is_seen(node, demo, prompts, sample, axes):
    """A classifier in every third: the other steps have a size of 0, and no angle."""
    plotted(node, classified(node, demo[0], every=3), prompts, sample, cfg=1.0, steps=9)
    size, angle = axes["Size of guidance"], axes["Angle to the prediction"]
    assert size.get_yscale() == "linear" and size.get_ylim()[0] == 0
    curve = angle.get_lines()[0]
    assert torch.tensor(curve.get_ydata()).isfinite().sum() == 3 and curve.get_marker() == "o"


def test_several_classifiers_have_a_line_each(node, demo, prompts, sample, axes):
    model = classified(node, classified(node, demo[0], labels="yellow"))
    plotted(node, model, prompts, sample, cfg=1.0, steps=2)
    lines = axes["Classifier: its certainty"].get_lines()
    assert {line.get_label() for line in lines} == {"'yellow'", "'blue'"}
    assert len({line.get_color() for line in lines}) == 2


def test_two_classifiers_of_one_class_are_told_apart(node, demo, prompts, sample, words):
    model = classified(node, classified(node, demo[0], labels="blue"), labels="blue")
    plotted(node, model, prompts, sample, steps=6)
    assert {"'blue' (0)", "'blue' (1)"} <= words


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
