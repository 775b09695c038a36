"""Trains the U-Net twin: `python -m benchmarks.train_unet_twin`, some 40 minutes on one core.

As the demo model is trained, on fewer scenes, with the demo's finished text encoder. An interrupted run goes on where
it stopped: call it again.
"""

import argparse

import comfy.ops
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import trange

from demo import train_diffusion as demo
from demo.architecture import WEIGHTS as DEMO_WEIGHTS
from demo.architecture import DemoTextModel, text_config

from .unet_twin import FOLDER, TIME_SCALE, WEIGHTS, network

SCENES, SEED = 2048, 3
STEPS, COOLDOWN, BATCH = 5000, 2000, 16
LEARNING_RATE = 1e-3
EXAMINE_EVERY = 1000


class Twin(torch.nn.Module):
    """The U-Net, and the demo's text encoder that it reads and does not change."""

    def __init__(self):
        super().__init__()
        operations = comfy.ops.disable_weight_init
        self.diffusion = network(operations)
        _initialise(self.diffusion)
        self.text = DemoTextModel(text_config(), torch.float32, "cpu", operations)
        self.text.load_state_dict(load_file(DEMO_WEIGHTS / "text.safetensors"))
        self.text.requires_grad_(False)
        self.to(demo.DEVICE)

    def forward(self, latent, time, tokens):
        """Velocity [B, 4, H, W] of latents at times [B] in 0..1 for tokens [B, MAX_TOKENS]."""
        with torch.no_grad():
            context = self.text.text_model(tokens)[0]
        return self.diffusion(latent, TIME_SCALE * time, context=context)


def _initialise(unet: torch.nn.Module) -> None:
    """PyTorch's own initial weights (ComfyUI's layers wait for a checkpoint); blocks start as the identity."""
    for layer in unet.modules():
        for base in (torch.nn.Linear, torch.nn.Conv2d, torch.nn.GroupNorm, torch.nn.LayerNorm):
            if isinstance(layer, base):
                base.reset_parameters(layer)
    last = [unet.out[-1]]
    last += [layer.out_layers[-1] for layer in unet.modules() if isinstance(layer, ResBlock)]
    last += [layer.proj_out for layer in unet.modules() if isinstance(layer, SpatialTransformer)]
    for layer in last:
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.manual_seed(SEED)
    FOLDER.mkdir(parents=True, exist_ok=True)
    batches = demo.Batches(demo.training_set(SCENES, SEED, FOLDER / "latents.safetensors"), BATCH, SEED)
    twin = Twin()
    averaged = AveragedModel(twin, multi_avg_fn=get_ema_multi_avg_fn(demo.EMA_DECAY))
    optimizer = torch.optim.AdamW(twin.diffusion.parameters(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    state, examine = FOLDER / "checkpoint.pt", demo.Examiner(48)
    start = demo.resume(state, twin, averaged, [optimizer])
    for step in (progress := trange(start, STEPS, initial=start, total=STEPS, desc="U-Net twin")):
        loss = _train(twin, optimizer, batches(step), step)
        averaged.update_parameters(twin)
        progress.set_postfix(loss=f"{loss:.4f}")
        if (step + 1) % EXAMINE_EVERY == 0:
            demo.checkpoint(state, twin, averaged, [optimizer], step + 1)
            progress.write(str(examine(averaged.module, step + 1)))
    save_file(averaged.module.diffusion.state_dict(), WEIGHTS)


def _train(twin: Twin, optimizer: torch.optim.Optimizer, batch, step: int) -> float:
    """One step; its loss."""
    noisy, time, tokens, target = batch
    for group in optimizer.param_groups:
        group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / demo.WARMUP, (STEPS - step) / COOLDOWN)
    optimizer.zero_grad(set_to_none=True)
    loss = F.mse_loss(twin(noisy, time, tokens), target)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
    optimizer.step()
    return loss.item()


if __name__ == "__main__":
    main()
