"""The demo model as it ships, earlier in its training, and early in another one, where guidance has more to do; and its twin
of another kind."""

import subprocess
from pathlib import Path

from safetensors.torch import load_file

from demo.architecture import WEIGHTS
from demo.loader import load_clip, load_diffusion_model
from tools.environment import DEV, REPOSITORY

from . import unet_twin

CHECKPOINT = "2b45b44"  # the commit with the demo model's weights after 8,700 of 14,200 steps
# Steps of training after which `python -m demo.train_diffusion` keeps weights.
STEPS = {"beginner": 1000, "pupil": 2000, "learner": 4000}
TRAINED = DEV / "training"
NETWORKS = ("diffusion", "text")
UNET = "U-Net twin"
REGIMES = SHIPPED, EARLIER, *_ = ("demo model", "earlier checkpoint", *STEPS, UNET)
COMMITTED = (SHIPPED, EARLIER)  # whose weights the repository has
# Whose guide by autoguidance is which: the same network, earlier in the same training.
EARLIER_ONE = {SHIPPED: EARLIER, "pupil": "beginner", "learner": "beginner"}


def demo_model():
    """MODEL and CLIP, as all of these."""
    return load_diffusion_model(), load_clip()


def with_weights_of(regime: str):
    """One of REGIMES."""
    if regime == UNET:
        return unet_twin.unet_twin(), load_clip()
    model, clip = demo_model()
    diffusion, text = weights_of(regime)
    model.model.load_model_weights(load_file(diffusion), "")
    clip.load_sd(load_file(text))
    return model, clip


def is_here(regime: str) -> bool:
    """Whether its weights are in the repository, or were trained here."""
    if regime == UNET:
        return unet_twin.WEIGHTS.exists()
    return regime not in STEPS or (TRAINED / f"step-{STEPS[regime]}").exists()


def weights_of(regime: str) -> list[Path]:
    """The files of a regime's diffusion network and text encoder; those of an earlier commit are read from git's history
    once. Raises FileNotFoundError where a training has not been done here."""
    if regime == EARLIER:
        return [_of_the_commit(name) for name in NETWORKS]
    if regime == UNET:
        return [unet_twin.WEIGHTS, WEIGHTS / "text.safetensors"]
    folder = WEIGHTS if regime == SHIPPED else TRAINED / f"step-{STEPS[regime]}"
    if not is_here(regime):
        raise FileNotFoundError(
            f"{folder} is not there: `python -m demo.train_diffusion --until {STEPS[regime]}` writes it on its way."
        )
    return [folder / f"{name}.safetensors" for name in NETWORKS]


def _of_the_commit(name: str) -> Path:
    path = DEV / "benchmarks" / f"{name}-{CHECKPOINT}.safetensors"
    if not path.exists():
        command = ["git", "show", f"{CHECKPOINT}:demo/weights/{name}.safetensors"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE).stdout)
    return path
