"""Trains the class-conditional demo's classifiers: `python -m demo.classes.train_classifiers`, some twenty minutes on one core.

One of clean pictures, in Hugging Face's format: trained to certainty on few pictures, as ImageNet's classifiers are, so
that it is surer of itself than it is right. One that reads noise, in the layout of guided-diffusion's classifiers, which
takes the same classes and has endless pictures. An interrupted run goes on where it stopped: call it again.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tqdm import trange
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

from benchmarks import in_process

from ..architecture import WEIGHTS
from ..training import SAMPLES, save_checkpoint
from . import world

FOLDER = WEIGHTS / "classes"
CLEAN, NOISE_AWARE = FOLDER / "classifier", FOLDER / f"{world.SIZE}x{world.SIZE}_classifier.safetensors"
NOISE_AWARE_SHAPE = {
    "image_size": world.SIZE, "in_channels": 3, "width": 32, "depth": 1, "multipliers": (1, 1, 1),
    "attention_levels": (2,), "classes": len(world.CLASSES), "head_channels": 16, "schedule": "linear",
}  # fmt: skip
FEW = 3000  # pictures that the clean classifier sees again and again
BATCH = 64
KEPT = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0).float()


def train_clean(steps: int, seed: int) -> None:
    """Certain of every training picture in the end, and of most others."""
    torch.manual_seed(seed)
    names = dict(enumerate(world.CLASSES))
    network = ResNetForImageClassification(
        ResNetConfig(
            embedding_size=16, hidden_sizes=[16, 32, 64], depths=[1, 1, 1], layer_type="basic", downsample_in_first_stage=True,
            id2label=names, label2id={name: i for i, name in names.items()},
        )
    )  # fmt: skip
    random = torch.Generator().manual_seed(seed)
    few = world.sample(FEW, random)

    def logits(pixels):
        return network(pixel_values=2 * pixels - 1).logits

    def batch():
        rows = torch.randint(FEW, (BATCH,), generator=random)
        return few.pixels[rows], few.labels[rows]

    _train("clean", network, logits, batch, steps, 3e-3, random)
    with torch.no_grad():
        for name, pictures in (("training", few), ("new", world.sample(3000, torch.Generator().manual_seed(seed + 1)))):
            sure, told = logits(pictures.pixels).softmax(-1).max(-1)
            right = (told == pictures.labels).float().mean()
            print(f"clean: right on {right:.1%} of {name} pictures, and {sure.mean():.1%} sure")
    network.half().save_pretrained(CLEAN)
    ViTImageProcessor(size={"height": world.SIZE, "width": world.SIZE}).save_pretrained(CLEAN)


def train_noise_aware(steps: int, seed: int) -> None:
    """Of pictures at every timestep alike."""
    torch.manual_seed(seed)
    adm = in_process.pack_module("nodes.classifiers.adm")
    config = adm.AdmConfig(**NOISE_AWARE_SHAPE)
    network = adm.AdmEncoder(config)
    random = torch.Generator().manual_seed(seed)

    def noisy(count: int):
        pictures, t = world.sample(count, random), torch.randint(1000, (count,), generator=random)
        kept = KEPT[t][:, None, None, None]
        noise = torch.randn(pictures.pixels.shape, generator=random)
        return kept.sqrt() * (2 * pictures.pixels - 1) + (1 - kept).sqrt() * noise, t, pictures.labels

    def batch():
        x, t, labels = noisy(BATCH)
        return (x, t), labels

    _train("noise-aware", network, lambda inputs: network(*inputs), batch, steps, 1e-3, random)
    with torch.no_grad():
        x, t, labels = noisy(2000)
        right = network(x, t).argmax(-1) == labels
        for start in range(0, 1000, 250):
            chosen = (t >= start) & (t < start + 250)
            print(f"noise-aware: right on {right[chosen].float().mean():.1%} at timesteps from {start}")
    weights = {key: value.half().contiguous() for key, value in network.state_dict().items()}
    save_file(weights, NOISE_AWARE, adm.metadata_of(config, world.CLASSES))


def _train(name: str, network, logits, batch, steps: int, rate: float, random: torch.Generator) -> None:
    """random: what batch() draws from; kept beside the weights, so that a run that goes on sees what it would have seen."""
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    stateful = {"network": network, "optimizer": optimizer, "schedule": schedule}
    checkpoint = SAMPLES / f"classes-{name}.pt"
    for step in (progress := trange(_resume(stateful, random, checkpoint), steps, desc=name)):
        inputs, labels = batch()
        loss = F.cross_entropy(logits(inputs), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.4f}")
        if step % 500 == 499:
            state = {part: value.state_dict() for part, value in stateful.items()}
            save_checkpoint({"step": step + 1, "random": random.get_state(), **state}, checkpoint)
    network.eval()


def _resume(stateful: dict, random: torch.Generator, checkpoint: Path) -> int:
    if not checkpoint.exists():
        return 0
    kept = torch.load(checkpoint, weights_only=True)
    for name, part in stateful.items():
        part.load_state_dict(kept[name])
    random.set_state(kept["random"])
    return kept["step"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clean-steps", type=int, default=3000)
    parser.add_argument("--noise-aware-steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    in_process.load_nodes()
    train_clean(options.clean_steps, options.seed)
    train_noise_aware(options.noise_aware_steps, options.seed)


if __name__ == "__main__":
    main()
