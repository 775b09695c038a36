"""The demo model as it ships, earlier in its training, and early in another one, where guidance has more to do."""

import subprocess
from pathlib import Path

from safetensors.torch import load_file

from demo.loader import load_clip, load_diffusion_model
from tools.environment import DEV, REPOSITORY

CHECKPOINT = "2b45b44"  # the commit with the demo model's weights after 8,700 of 14,200 steps
# Steps of training after which `python -m demo.train_diffusion` keeps weights.
STEPS = {"beginner": 1000, "apprentice": 2000, "learner": 4000}
TRAINED = DEV / "training"


def demo_model():
    """MODEL and CLIP, as all of these."""
    return load_diffusion_model(), load_clip()


def earlier_checkpoint():
    """With the weights of an earlier commit, which are read from git's history once."""
    return _with_weights(*map(_of_the_commit, ("diffusion", "text")))


def early(name: str):
    """With the weights after so few steps of a training of its own. Raises FileNotFoundError where they have not been trained here."""
    folder = TRAINED / f"step-{STEPS[name]}"
    if not folder.exists():
        raise FileNotFoundError(
            f"{folder} is not there: `python -m demo.train_diffusion` writes it on its way, and can be stopped then."
        )
    return _with_weights(*(folder / f"{name}.safetensors" for name in ("diffusion", "text")))


def _with_weights(diffusion: Path, text: Path):
    model, clip = demo_model()
    model.model.load_model_weights(load_file(diffusion), "")
    clip.load_sd(load_file(text))
    return model, clip


def _of_the_commit(name: str) -> Path:
    path = DEV / "benchmarks" / f"{name}-{CHECKPOINT}.safetensors"
    if not path.exists():
        command = ["git", "show", f"{CHECKPOINT}:demo/weights/{name}.safetensors"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE).stdout)
    return path
