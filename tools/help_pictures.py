"""Draws the pictures of the help pages, web/docs/images, with the bundled models: `python -m tools.help_pictures [NAME ...]`.

Each shows what one node does: rows of the same seeds without and with it. Some minutes on two cores.
"""

import argparse

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from benchmarks.in_process import load_nodes, quiet, run_node

from .environment import REPOSITORY
from .picture_rows import LARGEST, enlarged, sheet

FOLDER = REPOSITORY / "web" / "docs" / "images"
CLASSES = "red circle, yellow square, blue triangle, green circle, purple square, orange triangle"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(PICTURES), metavar="NAME", help=f"of {', '.join(PICTURES)}")
    names = parser.parse_args().names
    if unknown := set(names) - PICTURES.keys():
        parser.error(f"{', '.join(sorted(unknown))}: no such picture; accepted: {', '.join(PICTURES)}")
    load_nodes()
    quiet()
    for name in names:
        with torch.inference_mode():
            save(PICTURES[name](), name)


def save(picture: Image.Image, name: str) -> None:
    path = FOLDER / f"{name}.webp"
    picture.save(path, quality=70, method=6)
    if path.stat().st_size > LARGEST:
        raise ValueError(
            f"{path} has {path.stat().st_size} bytes; {LARGEST} at most: draw fewer rows, or smaller ones."
        )
    print(
        f"{path.relative_to(REPOSITORY)}: {picture.width} × {picture.height}, {path.stat().st_size} bytes", flush=True
    )


def demo(text: str, seed: int, cfg: float = 1.0, count: int = 4, same_noise: bool = False, negative=None, change=None):
    """Pictures of the demo model by a KSampler. change(model) gives the model to sample with, negative(clip) its negative."""
    model, clip, vae = run_node("EntropyGuidanceLoadDemo")
    (latent,) = run_node("EmptyLatentImage", width=128, height=128, batch_size=count)
    if same_noise:
        (latent,) = run_node("LatentBatchSeedBehavior", samples=latent, seed_behavior="fixed")
    drawn = sampled(change(model) if change else model, encoded(clip, text), latent, seed, cfg,
                    negative(clip) if negative else encoded(clip, ""))  # fmt: skip
    return run_node("VAEDecode", samples=drawn, vae=vae)[0]


def sampled(model, positive, latent: dict, seed: int, cfg: float, negative, *how: str) -> dict:
    guider = run_node("CFGGuider", model=model, positive=positive, negative=negative, cfg=cfg)[0]
    return sampled_by(guider, model, latent, seed, *how)


def sampled_by(guider, model, latent: dict, seed: int, sampler: str = "euler", scheduler: str = "simple") -> dict:
    return run_node(
        "SamplerCustomAdvanced",
        noise=run_node("RandomNoise", noise_seed=seed)[0],
        guider=guider,
        sampler=run_node("KSamplerSelect", sampler_name=sampler)[0],
        sigmas=run_node("BasicScheduler", model=model, scheduler=scheduler, steps=20, denoise=1.0)[0],
        latent_image=latent,
    )[0]


def encoded(clip, text: str):
    return run_node("CLIPTextEncode", clip=clip, text=text)[0]


def erg(**inputs):
    return lambda model: run_node("EntropyGuidanceERG", model=model, **inputs)[0]


def draw_erg() -> Image.Image:
    return sheet({
        "No guidance (cfg 1, no prompt)": demo("", 8),
        "ERG: scale 1.5": demo("", 8, change=erg(scale=1.5)),
        "Too strong: scale 8": demo("", 8, change=erg(scale=8.0)),
    })  # fmt: skip


def draw_text_encoder() -> Image.Image:
    text = "a green square above an orange circle on a white background"

    def muddled(clip):
        return encoded(run_node("EntropyGuidanceCLIP", clip=clip)[0], text)

    return sheet({
        "No guidance": demo(text, 3),
        "C-ERG alone: cfg 2": demo(text, 3, 2.0, negative=muddled),
        "Too strong: cfg 8": demo(text, 3, 8.0, negative=muddled),
    })  # fmt: skip


def draw_guider() -> Image.Image:
    return sheet(
        {"ERG Guider": _guided_away(None), "negative: white background": _guided_away("on a white background")}
    )


def _guided_away(negative: str | None) -> Tensor:
    text = "a red circle left of a blue square"
    model, clip, vae = run_node("EntropyGuidanceLoadDemo")
    (latent,) = run_node("EmptyLatentImage", width=128, height=128, batch_size=4)
    other = {} if negative is None else {"negative": encoded(clip, f"{text} {negative}")}
    (guider,) = run_node("EntropyGuidanceGuider", model=erg()(model), positive=encoded(clip, text),
                         weak=encoded(clip, ""), **other)  # fmt: skip
    return run_node("VAEDecode", samples=sampled_by(guider, model, latent, 5), vae=vae)[0]


def draw_cads() -> Image.Image:
    text = "a yellow triangle and a purple circle"

    def annealed(model):
        return run_node("EntropyGuidanceCADS", model=model, noise_scale=1.0, seed=1)[0]

    return sheet({
        "Four times the same noise": demo(text, 6, 3.0, same_noise=True),
        "with CADS, noise_scale 1": demo(text, 6, 3.0, same_noise=True, change=annealed),
    })  # fmt: skip


def steered(divergence: str, scale: float = 0.3):
    """Steers a model to yellow."""

    def change(model):
        classifier = run_node("EntropyGuidanceLoadClassifier", classifier_name="entropy-guidance-demo", prompts="")[0]
        score = run_node("EntropyGuidanceScore", classifier=classifier, labels="yellow", divergence=divergence)[0]
        vae = run_node("EntropyGuidanceLoadDemo")[2]
        return run_node("EntropyGuidanceApply", model=model, score=score, scale=scale, vae=vae)[0]

    return change


def draw_apply() -> Image.Image:
    return sheet({
        "No guidance, no prompt": demo("", 1),
        "Steered to yellow: scale 0.3": demo("", 1, change=steered("jensen_shannon")),
        "Too strong: scale 2": demo("", 1, change=steered("jensen_shannon", 2.0)),
    })  # fmt: skip


def draw_score() -> Image.Image:
    names = ("none", "reverse_kl", "forward_kl", "jensen_shannon")
    return sheet({f"divergence: {name}": demo("", 1, change=steered(name)) for name in names})


def draw_ddpm_sampler() -> Image.Image:
    return sheet({"No guidance": _ddpm(0.0), "scale 2": _ddpm(2.0)})


def _ddpm(scale: float) -> Tensor:
    model, condition, _, latent = classes()
    classifier = run_node("EntropyGuidanceLoadClassifier", classifier_name="entropy-guidance-demo-classes", prompts="")[
        0
    ]
    score = run_node("EntropyGuidanceScore", classifier=classifier, labels=CLASSES)[0]
    sampler = run_node("EntropyGuidanceDDPMSampler", score=score, scale=scale, variance="learned")[0]
    sigmas = run_node("BasicScheduler", model=model, scheduler="normal", steps=100, denoise=1.0)[0]
    samples = run_node("SamplerCustom", model=model, add_noise=True, noise_seed=1, cfg=1.0, positive=condition,
                       negative=condition, sampler=sampler, sigmas=sigmas, latent_image=latent)[0]  # fmt: skip
    return pixels(samples)


def classes():
    """The class-conditional demo model, its condition and null condition, and an empty picture for each class."""
    model = run_node("EntropyGuidanceLoadADM", model_name="entropy-guidance-demo-classes")[0]
    condition, null = run_node("EntropyGuidanceClassCondition", model=model, labels=CLASSES)
    (latent,) = run_node("EmptyChromaRadianceLatentImage", width=32, height=32, batch_size=6)
    return model, condition, null, latent


def pixels(samples: dict) -> Tensor:
    vae = run_node("VAELoader", vae_name="pixel_space")[0]
    return enlarged(run_node("VAEDecode", samples=samples, vae=vae)[0], 3)


def draw_classes() -> Image.Image:
    model, condition, null, latent = classes()

    def drawn(cfg: float) -> Tensor:
        return pixels(sampled(model, condition, latent, 1, cfg, null, "dpmpp_2m_sde", "karras"))

    return sheet({"No guidance": drawn(1.0), "CFG: cfg 2.5": drawn(2.5)})


def draw_demo_model() -> Image.Image:
    texts = ("a large red circle left of a small blue square", "a green triangle on a black background")
    return sheet({text: demo(text, 4, 3.0) for text in texts})


def draw_plot() -> Image.Image:
    text = "a large orange triangle above a small green square on a black background"
    model, clip, _ = run_node("EntropyGuidanceLoadDemo")
    (latent,) = run_node("EmptyLatentImage", width=128, height=128, batch_size=4)
    seen, record = run_node("EntropyGuidanceRecord", model=erg(scale=1.5, temperature=0.1, layers="40%-60%")(model))
    samples = sampled(seen, encoded(clip, text), latent, 7, 1.0, encoded(clip, ""))
    plot = run_node("EntropyGuidancePlot", record=record, latent=samples)[0]
    picture = to_pil_image(plot[0].movedim(-1, 0))
    return picture.resize((720, round(picture.height * 720 / picture.width)), Image.Resampling.LANCZOS)


def draw_calibration() -> Image.Image:
    """The half-finished pictures of the docs' diagram, before and after."""
    with Image.open(REPOSITORY / "docs" / "calibration.png") as whole:
        return whole.convert("RGB").crop((0, 0, whole.width * 2 // 3, whole.height))


def draw_calibration_report() -> Image.Image:
    before = draw_calibration()
    return before.crop((0, 0, before.width, before.height // 2))


PICTURES = {
    "erg": draw_erg, "text-encoder": draw_text_encoder, "guider": draw_guider, "cads": draw_cads, "apply": draw_apply,
    "score": draw_score, "ddpm-sampler": draw_ddpm_sampler, "classes": draw_classes, "demo-model": draw_demo_model,
    "plot": draw_plot, "calibration": draw_calibration, "calibration-report": draw_calibration_report,
}  # fmt: skip

if __name__ == "__main__":
    main()
