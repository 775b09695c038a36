"""The pack's place in the menu, and inputs that several nodes have."""

from comfy_api.latest import io

CATEGORY = "entropy guidance"

START_PERCENT = io.Float.Input(
    "start_percent", default=0.0, min=0.0, max=1.0, step=0.001, advanced=True,
    tooltip="When the effect begins, as a share of the sampling: 0 is the first step.",
)  # fmt: skip
END_PERCENT = io.Float.Input(
    "end_percent", default=1.0, min=0.0, max=1.0, step=0.001, advanced=True,
    tooltip="When the effect ends, as a share of the sampling: 1 is the last step.",
)  # fmt: skip
TILT = io.Float.Input(
    "tilt", default=0.0, min=-100.0, max=100.0, step=0.05,
    tooltip="Weighs the pictures of a batch: below 0 guides those more that do not show their class yet (variety; the "
    "paper uses -0.2), above 0 those that do. No effect on a single picture.",
)  # fmt: skip
VAE = io.Vae.Input(
    "vae", optional=True,
    tooltip="The model's VAE, with which the classifier sees pictures. Pixel-space models and noise-aware classifiers go "
    "without.",
)  # fmt: skip
