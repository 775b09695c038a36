"""Trains the demo model's autoencoder: `python -m demo.train_autoencoder`, some eleven minutes on two cores.

TAESD's network trained from nothing, without an adversarial loss: flat shapes have no texture to invent. An
interrupted run goes on where it stopped: call it again.
"""

import argparse
import json
from random import Random

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torchvision.utils import save_image
from tqdm import trange

from .training import SAMPLES, device, half_precision, import_comfyui, save_checkpoint

import_comfyui()
DEVICE = device()

from comfy.taesd.taesd import TAESD, Block  # noqa: E402

from .architecture import WEIGHTS, autoencoder  # noqa: E402
from .scenes import IMAGE_SIZE, render, sample_scene  # noqa: E402

CHECKPOINT = SAMPLES / "autoencoder.pt"
LATENT_WEIGHT = 1e-4  # keeps the latent small


def pictures(rng: Random, count: int, size: int = IMAGE_SIZE) -> torch.Tensor:
    """[count, 3, size, size] in 0..1; a smaller size is cut out around a shape."""
    return torch.stack([_cut_out(rng, sample_scene(rng), size) for _ in range(count)])


def _cut_out(rng: Random, scene, size: int) -> torch.Tensor:
    shape = rng.choice(scene.shapes)
    left, top = (
        min(max(round(centre - size / 2 + rng.uniform(-0.4, 0.4) * size), 0), IMAGE_SIZE - size)
        for centre in (shape.x, shape.y)
    )
    return render(scene)[:, top : top + size, left : left + size]


def loss(model: TAESD, images: torch.Tensor, noise: float, flip: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Reconstruction loss and the reconstruction [B, 3, H, W]. L1 plus L2: even areas and sharp edges.

    Noise on the latent makes the decoder forgive the diffusion model's small errors. Decoding the mirrored latent to
    the mirrored picture lets the diffusion training mirror stored latents.
    """
    latent = model.taesd_encoder(images)
    noisy = latent + noise * torch.randn_like(latent)
    reconstruction = model.taesd_decoder(noisy.flip(-1) if flip else noisy).float()
    target = images.flip(-1) if flip else images
    error = F.l1_loss(reconstruction, target) + F.mse_loss(reconstruction, target)
    return error + LATENT_WEIGHT * latent.float().square().mean(), reconstruction


def initialise(model: TAESD) -> None:
    """He initialisation (arXiv 1502.01852), with each residual branch damped so that the deep stack starts calm."""
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                torch.nn.init.zeros_(layer.bias)
    for layer in model.modules():
        if isinstance(layer, Block):
            layer.conv[-1].weight.data.mul_(0.2)


def measure_latent(model: TAESD, images: torch.Tensor) -> dict[str, str]:
    """Scales the latent to unit variance and returns, as metadata, its least-squares projection to RGB for previews."""
    with torch.no_grad():
        model.vae_scale.fill_(model.taesd_encoder(images).std())
        latent = model.encode(images * 2 - 1).cpu()
    colours = F.interpolate(images.cpu() * 2 - 1, latent.shape[-2:], mode="area").movedim(1, -1).flatten(0, -2)
    rows = latent.movedim(1, -1).flatten(0, -2)
    factors = torch.linalg.lstsq(torch.cat([rows, torch.ones(len(rows), 1)], dim=1), colours).solution
    return {"rgb_factors": json.dumps(factors[:-1].tolist()), "rgb_bias": json.dumps(factors[-1].tolist())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2200)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--noise", type=float, default=0.03)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = autoencoder().to(DEVICE, memory_format=torch.channels_last)
    initialise(model)
    optimizer = torch.optim.AdamW(model.parameters(), options.learning_rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.learning_rate, options.steps, pct_start=0.1)
    stateful = {"model": model, "optimizer": optimizer, "schedule": schedule}
    for step in (progress := trange(_resume(stateful), options.steps)):
        # Seeds of its own for each step: an interrupted run goes on as if it had not been.
        torch.manual_seed(options.seed * 1_000_003 + step)
        rng = Random(f"{options.seed} {step}")
        images = pictures(rng, options.batch_size, 64).to(DEVICE, memory_format=torch.channels_last)
        with half_precision(DEVICE):
            value, reconstruction = loss(model, images, options.noise, flip=step % 2 == 1)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{value.item():.4f}")
        if step % 100 == 98:
            save_image(torch.cat([images, reconstruction]), SAMPLES / "autoencoder.png", nrow=len(images))
            state = {name: part.state_dict() for name, part in stateful.items()}
            save_checkpoint({**state, "step": step + 1}, CHECKPOINT)
    metadata = measure_latent(model.eval(), pictures(Random(options.seed), 128).to(DEVICE))
    WEIGHTS.mkdir(exist_ok=True)
    weights = {key: value.half().cpu().contiguous() for key, value in model.state_dict().items()}
    save_file(weights, WEIGHTS / "vae.safetensors", metadata)


def _resume(stateful: dict) -> int:
    """Puts the last checkpoint's state into model, optimizer and schedule; the step to go on from."""
    if not CHECKPOINT.exists():
        return 0
    state = torch.load(CHECKPOINT, map_location=DEVICE, weights_only=True)
    for name, part in stateful.items():
        part.load_state_dict(state[name])
    return state["step"]


if __name__ == "__main__":
    main()
