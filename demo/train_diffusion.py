"""Trains the demo model's diffusion network and text encoder together: `python -m demo.train_diffusion`.

Rectified flow (arXiv 2209.03003) with logit-normal times (arXiv 2403.03206) in the autoencoder's latent space, Muon
for the hidden matrices and AdamW for the rest, a constant learning rate and a linear cool-down. Every random choice
derives from (seed, step), so that an interrupted run goes on where it stopped: call it again. A longer `--steps`
continues a finished run from its last checkpoint.
"""

import argparse
import csv
import hashlib
import math
from contextlib import nullcontext
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.utils import save_image
from tqdm import tqdm, trange

from .training import SAMPLES, device, half_precision, import_comfyui, save_checkpoint

import_comfyui()
DEVICE = device()

import comfy.ops  # noqa: E402

from .architecture import (  # noqa: E402
    WEIGHTS,
    DemoTextModel,
    DemoTokenizer,
    autoencoder,
    diffusion_network,
    text_config,
)
from .scene_checker import read_picture  # noqa: E402
from .scenes import Scene, render, sample_scene  # noqa: E402

LATENTS = SAMPLES / "latents.safetensors"
CHECKPOINT = SAMPLES / "checkpoint.pt"
CURVE = SAMPLES / "curve.csv"
CAPTION_DROPOUT = 0.1
UNIFORM_TIMES = 0.15  # share of training times drawn uniformly instead of logit-normally
EMA_DECAY = 0.998
WARMUP = 200  # steps
EARLY_STAGES = (1000, 2000, 3000, 4000, 5000)  # steps whose averaged weights are kept


class Networks(torch.nn.Module):
    """Diffusion network and text encoder: what is trained, averaged and saved together."""

    def __init__(self):
        super().__init__()
        operations = comfy.ops.disable_weight_init
        self.diffusion = diffusion_network(operations)
        self.text = DemoTextModel(text_config(), torch.float32, "cpu", operations)
        self.text.text_projection.requires_grad_(False)  # the diffusion network reads no pooled output
        _initialise(self)
        self.to(DEVICE)

    def load(self, folder: Path) -> None:
        """Takes over weights that `save` wrote."""
        for name, network in self.named_children():
            network.load_state_dict(load_file(folder / f"{name}.safetensors"))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, network in self.named_children():
            weights = {key: value.half().cpu().contiguous() for key, value in network.state_dict().items()}
            save_file(weights, folder / f"{name}.safetensors")

    def forward(self, latent, time, tokens):
        """Velocity [B, 4, H, W] of latents at times [B] in 0..1 for tokens [B, MAX_TOKENS]."""
        return self.diffusion(latent, time, self.text.text_model(tokens)[0])


def _initialise(networks: Networks) -> None:
    """PyTorch's own initial weights (ComfyUI's layers wait for a checkpoint); blocks start as the identity."""
    for layer in networks.modules():
        if isinstance(layer, torch.nn.LayerNorm):
            # ComfyUI adds to the residual in place, after the norm has kept it for the backward pass.
            layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].clone(),))
        for base in (torch.nn.Linear, torch.nn.LayerNorm, torch.nn.RMSNorm):
            if isinstance(layer, base):
                base.reset_parameters(layer)
    for table in (networks.text.get_input_embeddings(), networks.text.text_model.embeddings.position_embedding):
        torch.nn.init.normal_(table.weight, std=0.1)
    torch.nn.init.eye_(networks.text.text_projection.weight)
    flux = networks.diffusion
    modulations = (flux.double_stream_modulation_img, flux.double_stream_modulation_txt, flux.single_stream_modulation)
    for linear in (*(m.lin for m in modulations), flux.final_layer.linear, flux.final_layer.adaLN_modulation[1]):
        torch.nn.init.zeros_(linear.weight)


def tokenize(tokenizer: DemoTokenizer, captions: list[str]) -> torch.Tensor:
    """[B, MAX_TOKENS] token numbers, padded with the end token."""
    rows = [tokenizer.tokenize_with_weights(caption)["l"][0] for caption in captions]
    return torch.tensor([[token for token, _ in row] for row in rows])


def training_set(scenes: int, seed: int, kept: Path = LATENTS) -> dict[str, torch.Tensor]:
    """Latents [N, 4, 16, 16] and tokens [N, MAX_TOKENS] of training scenes; computed once, then read from `kept`."""
    origin = {"scenes": str(scenes), "seed": str(seed), "made with": _fingerprint()}
    if kept.exists():
        with safe_open(kept, "pt") as stored:
            if stored.metadata() == origin:
                return {name: stored.get_tensor(name) for name in stored.keys()}
    rng, tokenizer = Random(seed), DemoTokenizer()
    encoder = torch.compile(load_autoencoder().taesd_encoder)
    latents, captions = [], []
    for _ in trange(scenes // 32, desc="encoding scenes"):
        batch = [sample_scene(rng) for _ in range(32)]
        pictures = torch.stack([render(scene) for scene in batch]).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), half_precision(DEVICE):
            latents.append(encoder(pictures.to(DEVICE)).contiguous().cpu())
        captions += [scene.caption for scene in batch]
    scale = load_autoencoder().vae_scale.cpu()
    data = {"latents": (torch.cat(latents).float() / scale).half(), "tokens": tokenize(tokenizer, captions)}
    save_file(data, kept, origin)
    return data


def _fingerprint() -> str:
    """Of what the training set is made with: the scenes' code and the autoencoder's weights."""
    files = (Path(__file__).with_name("scenes.py"), WEIGHTS / "vae.safetensors")
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def load_autoencoder():
    model = autoencoder()
    model.load_state_dict(load_file(WEIGHTS / "vae.safetensors"))
    return model.eval().requires_grad_(False).to(DEVICE)


class Batches:
    """Random training batches: mirrored half of the time (captions too), without a caption now and then."""

    def __init__(self, data: dict[str, torch.Tensor], batch_size: int, seed: int):
        self.data, self.batch_size, self.seed = data, batch_size, seed
        tokenizer = DemoTokenizer()
        self.empty, left, right = tokenize(tokenizer, ["", "left", "right"])
        self.left, self.right = left[1], right[1]

    def __call__(self, step: int) -> tuple[torch.Tensor, ...]:
        """noisy latent, time, tokens, velocity target of a step."""
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        rows = torch.randint(len(self.data["latents"]), (self.batch_size,), generator=random)
        latent, tokens = self.data["latents"][rows].float(), self.data["tokens"][rows].long()
        mirror = torch.rand(self.batch_size, generator=random) < 0.5
        latent = torch.where(mirror[:, None, None, None], latent.flip(-1), latent)
        tokens = torch.where(mirror[:, None], self._mirrored(tokens), tokens)
        dropped = torch.rand(self.batch_size, generator=random) < CAPTION_DROPOUT
        tokens = torch.where(dropped[:, None], self.empty, tokens)
        time = torch.randn(self.batch_size, generator=random).sigmoid()
        uniform = torch.rand(self.batch_size, generator=random)
        time = torch.where(torch.rand(self.batch_size, generator=random) < UNIFORM_TIMES, uniform, time)
        noise = torch.randn(latent.shape, generator=random)
        noisy = torch.lerp(latent, noise, time[:, None, None, None])
        return tuple(tensor.to(DEVICE) for tensor in (noisy, time, tokens, noise - latent))

    def _mirrored(self, tokens):
        swapped = torch.where(tokens == self.left, self.right, tokens)
        return torch.where(tokens == self.right, self.left, swapped)


@torch.no_grad()
def sample(networks: Networks, tokens, empty, scale: float, steps: int = 20, seed: int = 0) -> torch.Tensor:
    """Latents [B, 4, 16, 16] by Euler steps under classifier-free guidance; scale 1 is no guidance."""
    x = torch.randn(len(tokens), 4, 16, 16, generator=torch.Generator().manual_seed(seed)).to(DEVICE)
    times = torch.linspace(1, 0, steps + 1, device=DEVICE)
    both = tokens if scale == 1 else torch.cat([tokens, empty.expand_as(tokens)])
    for time, following in zip(times[:-1], times[1:]):
        batch = x if scale == 1 else torch.cat([x, x])
        with half_precision(DEVICE):
            velocity = networks(batch, time.expand(len(batch)), both).float()
        if scale != 1:
            conditional, unconditional = velocity.chunk(2)
            velocity = unconditional + scale * (conditional - unconditional)
        x = x + (following - time) * velocity
    return x


class Examiner:
    """Draws held-out captions with the averaged weights and counts those drawn exactly."""

    def __init__(self, count: int = 96):
        rng = Random(12345)
        self.scenes: list[Scene] = [sample_scene(rng, held_out=True) for _ in range(count)]
        self.decoder = load_autoencoder()
        captions = [*(scene.caption for scene in self.scenes), ""]
        *tokens, self.empty = tokenize(DemoTokenizer(), captions).to(DEVICE)
        self.tokens = torch.stack(tokens)

    def __call__(self, networks: Networks, step: int) -> dict[str, float]:
        row = {"step": step}
        for name, scale in (("none", 1.0), ("cfg 3", 3.0)):
            latents = sample(networks, self.tokens, self.empty, scale)
            with torch.no_grad(), half_precision(DEVICE):
                pictures = self.decoder.taesd_decoder(latents * self.decoder.vae_scale).float().clamp(0, 1).cpu()
            save_image(pictures[:24], SAMPLES / f"{name.replace(' ', '')}.png", nrow=8)
            row[name] = sum(
                read_picture(picture).has_pairs_of(scene) for picture, scene in zip(pictures, self.scenes)
            ) / len(self.scenes)
        return row


def optimizers(networks: Networks, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings, in- and outputs, norms and biases."""
    hidden, rest = [], []
    for name, parameter in networks.named_parameters():
        if parameter.requires_grad:
            inside = parameter.ndim == 2 and ("blocks" in name or "encoder.layers" in name)
            (hidden if inside else rest).append(parameter)
    muon = torch.optim.Muon(hidden, learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(rest, learning_rate, betas=(0.9, 0.98), weight_decay=0.0)]


def _attention():
    """Unfused attention on a CPU: for 84 tokens its backward pass is twice as fast there."""
    return sdpa_kernel(SDPBackend.MATH) if DEVICE.type == "cpu" else nullcontext()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=14_000)
    parser.add_argument("--cooldown", type=int, default=5_500, help="last steps, with a falling learning rate")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--scenes", type=int, default=20_480, help="size of the training set")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--examine-every", type=int, default=500)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--until", type=int, help="stop after this step, and leave the pack's own weights as they are")
    parser.add_argument("--start-from", type=Path, help="folder of weights to start from, with new optimizers")
    options = parser.parse_args()
    torch.manual_seed(options.seed)

    batches = Batches(training_set(options.scenes, options.seed), options.batch_size, options.seed)
    networks = Networks()
    if options.start_from:
        networks.load(options.start_from)
    averaged = AveragedModel(networks, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    stages = optimizers(networks, options.learning_rate)
    step = resume(CHECKPOINT, networks, averaged, stages)
    last = min(options.until or options.steps, options.steps)
    if step > last:
        raise SystemExit(f"{CHECKPOINT} is at step {step} already: move it away to begin anew.")
    examine = Examiner()
    train_step = torch.compile(networks) if options.compile else networks

    progress = tqdm(initial=step, total=last)
    while step < last:
        rate = min(1.0, (step + 1) / WARMUP, (options.steps - step) / options.cooldown)
        for optimizer in stages:
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * rate
        noisy, time, tokens, target = batches(step)
        with half_precision(DEVICE), _attention():
            velocity = train_step(noisy, time, tokens)
        loss = F.mse_loss(velocity.float(), target)
        for optimizer in stages:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        for optimizer in stages:
            optimizer.step()
        averaged.update_parameters(networks)
        step += 1
        progress.update()
        if step % 20 == 0:
            progress.set_postfix(loss=f"{loss.item():.4f}")
            if not math.isfinite(loss.item()):
                raise FloatingPointError(f"The loss became {loss.item()} at step {step}: lower --learning-rate.")
        if step % options.examine_every == 0 or step == options.steps:
            checkpoint(CHECKPOINT, networks, averaged, stages, step)
            _append(CURVE, {**examine(averaged.module, step), "loss": f"{loss.item():.4f}"})
        if step in EARLY_STAGES:
            averaged.module.save(SAMPLES / f"step-{step}")
    if options.until is None:
        averaged.module.save(WEIGHTS)


def resume(path: Path, networks, averaged, stages) -> int:
    """Takes over the state that `checkpoint` wrote, where there is one; the step to go on from."""
    if not path.exists():
        return 0
    state = torch.load(path, map_location=DEVICE, weights_only=True)
    networks.load_state_dict(state["networks"])
    averaged.load_state_dict(state["averaged"])
    for optimizer, saved in zip(stages, state["optimizers"]):
        optimizer.load_state_dict(saved)
    return state["step"]


def checkpoint(path: Path, networks, averaged, stages, step: int) -> None:
    state = {"networks": networks.state_dict(), "averaged": averaged.state_dict(), "step": step}
    save_checkpoint({**state, "optimizers": [optimizer.state_dict() for optimizer in stages]}, path)


def _append(path, row: dict) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
