"""A judge of pictures that no guidance has seen: Fréchet distance, precision and recall in its features.

No pretrained network knows the demo model's world, so the judge was trained here, once, on clean pictures, to read off
everything that a scene has: background, colours and kinds of its shapes and their places. Its weights are beside this file,
so that numbers of different machines can be compared from now on; without them it is trained anew.
"""

from collections.abc import Callable
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from safetensors.torch import load_model, save_model
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance
from tqdm import trange
from transformers import ResNetConfig, ResNetModel

from demo.scenes import BACKGROUNDS, COLOURS, IMAGE_SIZE, SHAPES, Scene, clear_scenes, render
from tools.environment import DEV

WEIGHTS = Path(__file__).with_suffix(".safetensors")
STEPS, BATCH = 700, 64
FEATURES = 96
NEIGHBOURS = 3  # k of improved precision and recall, https://arxiv.org/abs/1904.06991
PAIRS = [(colour, kind) for colour in COLOURS for kind in SHAPES]
ANSWERS = (len(PAIRS), len(PAIRS) + 1, len(BACKGROUNDS))  # the first shape, the second or none, the background


class Judge(torch.nn.Module):
    """Features [B, FEATURES] of pictures [B, 3, 128, 128] in 0..1."""

    def __init__(self):
        super().__init__()
        self.network = ResNetModel(
            ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 64, FEATURES], depths=[1] * 4, layer_type="basic")
        )
        self.answers = torch.nn.Linear(FEATURES, sum(ANSWERS) + 2)

    def forward(self, pictures: Tensor) -> Tensor:
        pixels = 2 * F.interpolate(pictures.float(), scale_factor=0.5, mode="area") - 1
        return self.network(pixels).pooler_output.flatten(1)

    def loss(self, scenes: list[Scene]) -> Tensor:
        answers = self.answers(self(torch.stack([render(scene) for scene in scenes])))
        *classes, place = answers.split((*ANSWERS, 2), 1)
        truths = torch.tensor([_truth(scene) for scene in scenes])
        places = torch.tensor([(scene.largest.x, scene.largest.y) for scene in scenes]) / IMAGE_SIZE
        return sum(map(F.cross_entropy, classes, truths.unbind(1))) + 10 * F.mse_loss(place, places)


def _truth(scene: Scene) -> tuple[int, int, int]:
    second = [PAIRS.index(shape.pair) for shape in scene.shapes if shape is not scene.largest]
    return PAIRS.index(scene.largest.pair), second[0] if second else len(PAIRS), [*BACKGROUNDS].index(scene.background)


def judge(steps: int = STEPS) -> Judge:
    """The judge; trains it where its weights are missing, some three minutes on one core. Fewer steps are for trying a
    benchmark out."""
    rng = Random("judge")
    weights = WEIGHTS if steps == STEPS else DEV / "benchmarks" / f"judge-{steps}.safetensors"
    return trained(Judge, weights, steps, lambda network: network.loss(clear_scenes(rng, BATCH)))


def trained(
    build: Callable[[], torch.nn.Module], weights: Path, steps: int, batch_loss: Callable[[torch.nn.Module], Tensor]
) -> torch.nn.Module:
    """A network with the weights of a file, which training writes where it is missing. For evaluation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = build()
        if not weights.exists():
            _train(network, steps, batch_loss, weights.stem)
            weights.parent.mkdir(parents=True, exist_ok=True)
            save_model(network, str(weights))
    load_model(network, weights)
    return network.eval().requires_grad_(False)


def _train(network: torch.nn.Module, steps: int, batch_loss: Callable[[torch.nn.Module], Tensor], name: str) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for _ in trange(steps, desc=name):
        optimizer.zero_grad(set_to_none=True)
        batch_loss(network).backward()
        optimizer.step()
        schedule.step()


class _Features(torch.nn.Identity):
    """Gives torchmetrics features as they are."""

    def __init__(self, count: int):
        super().__init__()
        self.num_features = count


def frechet(real: Tensor, drawn: Tensor) -> float:
    """Fréchet distance of features [N, F] to others."""
    distance = FrechetInceptionDistance(_Features(real.shape[1]))
    distance.update(real, real=True)
    distance.update(drawn, real=False)
    return distance.compute().item()


def is_within(points: Tensor, others: Tensor) -> Tensor:
    """[P]: whether a point [P, F] lies nearer to one of the others [O, F] than that one's k-th neighbour among them."""
    radii = NearestNeighbors(n_neighbors=NEIGHBOURS + 1).fit(others).kneighbors(others)[0][:, -1]
    return (torch.cdist(points, others) <= torch.from_numpy(radii)).any(1)
