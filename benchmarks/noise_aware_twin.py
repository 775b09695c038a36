"""The demo classifier's noise-aware twin, for guidance as Dhariwal & Nichol do it, https://arxiv.org/abs/2105.05233.

It reads the noisy latents themselves, is told their noise level, and names the same classes. Trained here, once, in
the published layout; the loader finds it in `.dev/benchmarks/classifiers`.
"""

from random import Random

import folder_paths
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tqdm import trange

from demo.train_classifier import CLASSES, batch_of
from tools.environment import DEV

from .in_process import pack_module, run_node

NAME = "16x16_classifier_of_demo_latents.safetensors"
FOLDER = DEV / "benchmarks" / "classifiers"
PICTURES = 4096  # encoded once
STEPS, BATCH = 1500, 64


def noise_aware_twin():
    """A GUIDANCE_CLASSIFIER; trains it where it is not there yet, some six minutes on one core."""
    folder_paths.add_model_folder_path("classifiers", str(FOLDER))
    if not (FOLDER / NAME).exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        _train()
    return run_node("EntropyGuidanceLoadClassifier", classifier_name=NAME)[0]


@torch.inference_mode(False)
def _train() -> None:
    adm = pack_module("nodes.classifiers.adm")
    config = adm.AdmConfig(
        image_size=16, in_channels=4, width=64, depth=1, multipliers=(1, 1, 2), attention_levels=(1, 2),
        classes=len(CLASSES), head_channels=32, schedule="flow",
    )  # fmt: skip
    torch.manual_seed(2)
    network = adm.AdmEncoder(config)
    latents, labels = _latents()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, STEPS)
    for _ in (progress := trange(STEPS, desc="noise-aware twin")):
        chosen = torch.randint(len(latents), (BATCH,))
        x0, time = latents[chosen], torch.rand(BATCH, 1, 1, 1)
        x = (1 - time) * x0 + time * torch.randn_like(x0)
        loss = F.cross_entropy(network(x, 1000 * time.flatten()), labels[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}")
    save_file(network.state_dict(), FOLDER / NAME, adm.metadata_of(config, CLASSES))


@torch.inference_mode()
def _latents() -> tuple[torch.Tensor, torch.Tensor]:
    """Latents [N, 4, 16, 16] as the diffusion model sees them, and their classes [N]."""
    model, _, vae = run_node("EntropyGuidanceLoadDemo")
    rng = Random("noise-aware twin")
    latents, labels = [], []
    for _ in trange(PICTURES // BATCH, desc="encoding"):
        pictures, classes = batch_of(rng, BATCH)
        latents.append(model.model.process_latent_in(vae.encode(pictures.movedim(1, -1))))
        labels.append(classes)
    return torch.cat(latents).clone(), torch.cat(labels)
