"""Trains the class-conditional demo model: `python -m demo.classes.train_diffusion`, some hour on two cores.

Noise prediction with a learned variance as in Improved DDPM (https://arxiv.org/abs/2102.09672), on a linear schedule of
1000 steps: first with the weights of Min-SNR (https://arxiv.org/abs/2303.09556), for the plan of a picture, and then
without, for its grain. A constant learning rate and a linear cool-down; the class is left out now and then, for
classifier-free guidance. Every random choice derives from (seed, step), so that an interrupted run goes on where it
stopped: call it again.
"""

import argparse
import json

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.utils import save_image
from tqdm import trange

from benchmarks import in_process
from guidance_core.ddpm_variance import learned_log_variance, variance_bounds

from ..architecture import WEIGHTS
from ..training import SAMPLES, save_checkpoint
from . import world

FILE = WEIGHTS / "classes" / "diffusion.safetensors"
CHECKPOINT = SAMPLES / "classes.pt"
SHAPE = {
    "width": 32, "depth": 1, "multipliers": (1, 1, 1, 1), "attention_levels": (1, 2, 3),
    "classes": len(world.CLASSES) + 1, "head_channels": 16,
}  # fmt: skip
NULL = len(world.CLASSES)  # the class embedding's row for no class
CLASS_DROPOUT = 0.1
EMA_DECAY = 0.999
WARMUP = 200  # steps
MOST_SNR = 5.0  # γ of Min-SNR: timesteps with more signal than this weigh less
PLAN_SHARE = 0.5  # of the training, with Min-SNR
COOL_DOWN = 0.4  # share of the training in which the learning rate falls to 0
VARIANCE_WEIGHT = 1.0  # of the variational bound, in bits of a pixel for the sum over all timesteps

BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
KEPT = (1 - BETAS).cumprod(0)
FROM_NOISE = torch.cat([KEPT.flip(0), torch.ones(1)])  # ᾱ of steps from the last timestep to the clean picture
LOG_SMALL, LOG_LARGE = (bound.flip(0).log().float() for bound in variance_bounds(FROM_NOISE, 1 - FROM_NOISE))


def loss(network, pixels: Tensor, labels: Tensor, random: torch.Generator, most_snr: float) -> Tensor:
    """min(SNR, γ)/SNR · ‖ε − ε̂‖² and the variational bound, which trains the variance alone; pixels [B, 3, H, W] in 0..1.

    most_snr: γ, infinite for equal weights.
    """
    x0 = 2 * pixels - 1
    t = torch.randint(1000, (len(x0),), generator=random)
    noise = torch.randn(x0.shape, generator=random)
    kept = KEPT[t].float()[:, None, None, None]
    x = kept.sqrt() * x0 + (1 - kept).sqrt() * noise
    labels = torch.where(torch.rand(len(labels), generator=random) < CLASS_DROPOUT, NULL, labels)
    predicted, v = network(x, t, labels)
    weight = (most_snr * (1 - kept) / kept).clamp(max=1)
    return (weight * (predicted - noise).square()).mean() + VARIANCE_WEIGHT * _bound(predicted.detach() - noise, v, t)


def _bound(error: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """KL( q(x_{t−1} | x_t, x0) ‖ p(x_{t−1} | x_t) ) for an error of the noise [B, C, H, W], in bits of a pixel."""
    log_small, log_large = (bound[t][:, None, None, None] for bound in (LOG_SMALL, LOG_LARGE))
    log_variance = learned_log_variance(v, log_small, log_large)
    kept = KEPT[t].float()[:, None, None, None]
    alpha = 1 - log_large.exp()
    means_apart = log_large.exp() / (alpha * (1 - kept)).sqrt() * error
    divergence = log_variance - log_small - 1 + (log_small.exp() + means_apart.square()) * (-log_variance).exp()
    return 0.5 * divergence.mean() / torch.log(torch.tensor(2.0))


class Trained(torch.nn.Module):
    """The network with its class embedding, whose rows its forward takes by number."""

    def __init__(self):
        super().__init__()
        adm = in_process.pack_module("nodes.class_conditional.adm_unet")
        self.asked = in_process.pack_module("nodes.classifiers.learned_variance").KEY
        self.network = adm.AdmUNet(adm.AdmShape(**SHAPE))
        for layer in self.network.modules():
            for last in (getattr(layer, "proj_out", None), getattr(layer, "out_layers", [None])[-1]):
                if last is not None:
                    torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(self.network.out[-1].weight)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """ε̂ and v, each [B, 3, H, W]."""
        told = _Told()
        options = {self.asked: told}
        noise = self.network(x, t, self.network.label_emb(labels)[:, None], transformer_options=options)
        return noise, told.values


class _Told:
    def take(self, values: Tensor, _transformer_options: dict) -> None:
        self.values = values


@torch.no_grad()
def draw(network, labels: Tensor, steps: int = 50) -> Tensor:
    """Pictures [B, 3, 32, 32] in 0..1 by DDIM, from fixed noise."""
    x = torch.randn(len(labels), 3, world.SIZE, world.SIZE, generator=torch.Generator().manual_seed(1))
    times = torch.linspace(999, 0, steps).round().long()
    for now, following in zip(times, [*times[1:], None]):
        noise, _ = network(x, now.expand(len(labels)), labels)
        kept = KEPT[now].float()
        x0 = ((x - (1 - kept).sqrt() * noise) / kept.sqrt()).clamp(-1, 1)
        after = torch.tensor(1.0) if following is None else KEPT[following].float()
        x = after.sqrt() * x0 + (1 - after).sqrt() * noise
    return (x + 1) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    in_process.load_nodes()
    trained = Trained()
    averaged = AveragedModel(trained, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    optimizer = torch.optim.AdamW(trained.parameters(), options.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(step / WARMUP, 1, (1 - step / options.steps) / COOL_DOWN)
    )
    stateful = {"network": trained, "averaged": averaged, "optimizer": optimizer, "schedule": schedule}
    for step in (progress := trange(_resume(stateful), options.steps)):
        random = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
        pictures = world.sample(options.batch_size, random)
        most_snr = MOST_SNR if step < PLAN_SHARE * options.steps else torch.inf
        value = loss(trained, pictures.pixels, pictures.labels, random, most_snr)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(trained)
        progress.set_postfix(loss=f"{value.item():.4f}")
        if step % 500 == 499:
            save_checkpoint({"step": step + 1, **{k: v.state_dict() for k, v in stateful.items()}}, CHECKPOINT)
            pixels = draw(averaged.module, torch.arange(len(world.CLASSES)).repeat(4))
            save_image(pixels, SAMPLES / f"classes-{step + 1}.png", nrow=len(world.CLASSES))
    _save(averaged.module)


def _resume(stateful: dict) -> int:
    if not CHECKPOINT.exists():
        return 0
    kept = torch.load(CHECKPOINT, weights_only=True)
    for name, part in stateful.items():
        part.load_state_dict(kept[name])
    return kept["step"]


def _save(trained: Trained) -> None:
    FILE.parent.mkdir(parents=True, exist_ok=True)
    weights = {key: value.half().contiguous() for key, value in trained.network.state_dict().items()}
    notes = {"labels": json.dumps(world.CLASSES), "num_head_channels": str(SHAPE["head_channels"])}
    save_file(weights, FILE, {**notes, "image_size": str(world.SIZE)})


if __name__ == "__main__":
    main()
