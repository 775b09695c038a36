"""Graphs in the format of ComfyUI's HTTP API."""

DEFAULTS = {"layers": "40%-60%", "temperature": 0.3, "start_percent": 0.0, "end_percent": 1.0, "attention": "all",
            "alpha": 1.0, "step_size": 1.0, "iterations": 1}  # fmt: skip

CADS = {"noise_scale": 0.5, "mixing": 1.0, "tau1": 0.6, "tau2": 0.9, "apply_to": "positive", "seed": 0}

SCORE = {"labels": "blue", "divergence": "jensen_shannon", "divergence_weight": 1.0, "target_confidence": 0.9,
         "joint_temperature": 1.0, "marginal_temperature": 0.5, "entropy_weight": 0.0, "softplus_beta": 3.0}  # fmt: skip
GUIDANCE = {"scale": 0.2, "tilt": 0.0, "normalize": True, "start_percent": 0.0, "end_percent": 1.0, "every": 1,
            "decode": "auto"}  # fmt: skip

CALIBRATION = {"image_folder": "entropy-guidance-demo", "resolution": 64}
TRAINING = {"steps": 2, "learning_rate": 1e-4, "batch_size": 8, "ece_weight": 1.0, "ece_beta": 0.001, "seed": 0}


def text_to_image(
    erg=True, clip_temperature=0.01, clip_layers="all", steps=3, cfg=2.0, batch=1, seed=1, **inputs
) -> dict:
    """The stock graph with the demo model; erg=False leaves out both nodes of the pack but the loader."""
    graph = {
        "demo": node("EntropyGuidanceLoadDemo"),
        "positive": node("CLIPTextEncode", clip=["demo", 1], text="a red circle left of a blue square"),
        "latent": node("EmptyLatentImage", width=128, height=128, batch_size=batch),
        "erg": node("EntropyGuidanceERG", model=["demo", 0], **{**DEFAULTS, **inputs}),
        "clip": node("EntropyGuidanceCLIP", clip=["demo", 1], temperature=clip_temperature, layers=clip_layers),
        "negative": node("CLIPTextEncode", clip=["clip", 0], text="a red circle left of a blue square"),
        "sampler": node(
            "KSampler", model=["erg", 0], positive=["positive", 0], negative=["negative", 0], latent_image=["latent", 0],
            seed=seed, steps=steps, cfg=cfg, sampler_name="euler", scheduler="simple", denoise=1.0,
        ),
        "decoded": node("VAEDecode", samples=["sampler", 0], vae=["demo", 2]),
        "saved": node("SaveImage", images=["decoded", 0], filename_prefix="test"),
    }  # fmt: skip
    if not erg:
        del graph["erg"], graph["clip"]
        graph["sampler"]["inputs"]["model"] = ["demo", 0]
        graph["negative"]["inputs"].update(clip=["demo", 1], text="")
    return graph


def guided_away(erg=None, guider=None, cads=None, negative=True, steps=3, seed=1) -> dict:
    """The demo model with ERG Guider and CADS; dictionaries change inputs of the pack's nodes."""
    graph = {
        "demo": node("EntropyGuidanceLoadDemo"),
        "positive": node("CLIPTextEncode", clip=["demo", 1], text="a red circle left of a blue square"),
        "empty": node("CLIPTextEncode", clip=["demo", 1], text=""),
        "other": node("CLIPTextEncode", clip=["demo", 1], text="a green triangle on a white background"),
        "latent": node("EmptyLatentImage", width=128, height=128, batch_size=1),
        "erg": node("EntropyGuidanceERG", model=["demo", 0], **{**DEFAULTS, **(erg or {})}),
        "cads": node("EntropyGuidanceCADS", model=["erg", 0], **{**CADS, **(cads or {})}),
        "guider": node(
            "EntropyGuidanceGuider", model=["cads", 0], positive=["positive", 0], weak=["empty", 0],
            **{"scale": 2.0, "negative_scale": 2.0, **(guider or {})},
        ),
        "noise": node("RandomNoise", noise_seed=seed),
        "euler": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node("BasicScheduler", model=["demo", 0], scheduler="simple", steps=steps, denoise=1.0),
        "sampler": node(
            "SamplerCustomAdvanced", noise=["noise", 0], guider=["guider", 0], sampler=["euler", 0], sigmas=["sigmas", 0],
            latent_image=["latent", 0],
        ),
        "decoded": node("VAEDecode", samples=["sampler", 0], vae=["demo", 2]),
        "saved": node("SaveImage", images=["decoded", 0], filename_prefix="test"),
    }  # fmt: skip
    if negative:
        graph["guider"]["inputs"]["negative"] = ["other", 0]
    return graph


def classifier_guided(loader=None, score=None, guidance=None, batch=1, vae=True, steps=3) -> dict:
    """The demo model without a prompt, steered by its classifier; dictionaries change inputs of the pack's nodes."""
    graph = {
        "demo": node("EntropyGuidanceLoadDemo"),
        "empty": node("CLIPTextEncode", clip=["demo", 1], text=""),
        "latent": node("EmptyLatentImage", width=128, height=128, batch_size=batch),
        "classifier": node(
            "EntropyGuidanceLoadClassifier", **{"classifier_name": "entropy-guidance-demo", "prompts": "", **(loader or {})}
        ),
        "score": node("EntropyGuidanceScore", classifier=["classifier", 0], **{**SCORE, **(score or {})}),
        "apply": node(
            "EntropyGuidanceApply", model=["demo", 0], score=["score", 0], **{**GUIDANCE, **(guidance or {})}
        ),
        "sampler": node(
            "KSampler", model=["apply", 0], positive=["empty", 0], negative=["empty", 0], latent_image=["latent", 0],
            seed=1, steps=steps, cfg=1.0, sampler_name="euler", scheduler="simple", denoise=1.0,
        ),
        "decoded": node("VAEDecode", samples=["sampler", 0], vae=["demo", 2]),
        "saved": node("SaveImage", images=["decoded", 0], filename_prefix="test"),
    }  # fmt: skip
    if vae:
        graph["apply"]["inputs"]["vae"] = ["demo", 2]
    return graph


def class_conditional(erg=None, condition=None, latent=None, steps=3, seed=1) -> dict:
    """The class-conditional demo model, of pixels; dictionaries change inputs of nodes, erg=False leaves ERG out."""
    graph = {
        "adm": node("EntropyGuidanceLoadADM", model_name="entropy-guidance-demo-classes"),
        "class": node(
            "EntropyGuidanceClassCondition", model=["adm", 0], **{"labels": "red circle, blue square", **(condition or {})}
        ),
        "latent": node(
            "EmptyChromaRadianceLatentImage", **{"width": 32, "height": 32, "batch_size": 2, **(latent or {})}
        ),
        "erg": node("EntropyGuidanceERG", model=["adm", 0], **{**DEFAULTS, "layers": "middle", **(erg or {})}),
        "sampler": node(
            "KSampler", model=["erg", 0], positive=["class", 0], negative=["class", 1], latent_image=["latent", 0],
            seed=seed, steps=steps, cfg=2.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        ),
        "pixels": node("VAELoader", vae_name="pixel_space"),
        "decoded": node("VAEDecode", samples=["sampler", 0], vae=["pixels", 0]),
        "saved": node("SaveImage", images=["decoded", 0], filename_prefix="test"),
    }  # fmt: skip
    if erg is False:
        del graph["erg"]
        graph["sampler"]["inputs"]["model"] = ["adm", 0]
    return graph


def papers_ddpm(classifier="entropy-guidance-demo-classes", score=None, sampler=None, steps=4) -> dict:
    """The class-conditional demo model under the papers' DDPM; dictionaries change inputs of the pack's nodes."""
    graph = class_conditional(erg=False)
    labels = graph["class"]["inputs"]["labels"]
    graph |= {
        "classifier": node("EntropyGuidanceLoadClassifier", classifier_name=classifier, prompts=""),
        "score": node("EntropyGuidanceScore", classifier=["classifier", 0], **{**SCORE, "labels": labels, **(score or {})}),
        "ddpm": node(
            "EntropyGuidanceDDPMSampler", score=["score", 0],
            **{"scale": 1.0, "gamma": 0.3, "tilt": 0.0, "variance": "learned", **(sampler or {})},
        ),
        "steps": node("BasicScheduler", model=["adm", 0], scheduler="normal", steps=steps, denoise=1.0),
        "sampler": node(
            "SamplerCustom", model=["adm", 0], add_noise=True, noise_seed=1, cfg=1.0, positive=["class", 0],
            negative=["class", 1], sampler=["ddpm", 0], sigmas=["steps", 0], latent_image=["latent", 0],
        ),
    }  # fmt: skip
    return graph


def calibrated(training=None, report=None, save=None) -> dict:
    """The demo classifier, calibrated on the demo's pictures, measured and saved; dictionaries change inputs."""
    return {
        "classifier": node("EntropyGuidanceLoadClassifier", classifier_name="entropy-guidance-demo", prompts=""),
        "calibrate": node(
            "EntropyGuidanceCalibrate", classifier=["classifier", 0], **{**CALIBRATION, **TRAINING, **(training or {})}
        ),
        "report": node(
            "EntropyGuidanceCalibrationReport", classifier=["calibrate", 0], **{**CALIBRATION, **(report or {})}
        ),
        "saved": node(
            "EntropyGuidanceSaveClassifier", classifier=["calibrate", 0], **{"filename_prefix": "mine", **(save or {})}
        ),
        "before and after": node("SaveImage", images=["calibrate", 1], filename_prefix="calibration"),
        "diagram": node("SaveImage", images=["report", 0], filename_prefix="report"),
    }


def recorded(**inputs) -> dict:
    """`text_to_image` with a record of the sampling, and a plot of it."""
    graph = text_to_image(**inputs)
    graph["record"] = node("EntropyGuidanceRecord", model=["erg", 0])
    graph["sampler"]["inputs"]["model"] = ["record", 0]
    graph["plot"] = node("EntropyGuidancePlot", record=["record", 1], latent=["sampler", 0])
    graph["plotted"] = node("SaveImage", images=["plot", 0], filename_prefix="plot")
    return graph


def node(class_type: str, **inputs) -> dict:
    return {"class_type": class_type, "inputs": inputs}
