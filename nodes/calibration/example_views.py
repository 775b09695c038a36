"""All views of a folder's pictures, in batches: each picture at each share of the sampling, with its own noise.

A view is made when it is first asked for, and kept while there is memory for it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import sha256

import comfy.model_management
import torch

from .guidance_view import FINISHED, PictureView, PredictionView, parse_percents
from .pictures import Pictures

MEMORY_SHARE = 0.25  # of what is free at the start
Key = int | tuple[str, int]  # of a view, or of a picture's "latent"
Batch = tuple[tuple[torch.Tensor, ...], torch.Tensor]


class ExampleViews:
    """Views are numbered from 0: all pictures at the first percent, then all at the second, and so on.

    device: of the batches. seed: any text; of the noise, which differs from view to view.
    """

    def __init__(
        self, view: PictureView, pictures: Pictures, percents: Sequence[float], device: torch.device, seed: str
    ) -> None:
        self.view, self.pictures, self.percents, self.device, self.seed = view, pictures, percents, device, seed
        self.full = False  # whether views are made anew each time, for lack of memory
        self._kept: dict[Key, tuple[torch.Tensor, ...]] = {}
        self._room = MEMORY_SHARE * comfy.model_management.get_free_memory(torch.device("cpu"))

    def __len__(self) -> int:
        return len(self.pictures) * len(self.percents)

    def batches(self, percent: float, size: int) -> Iterator[Batch]:
        """All pictures at one percent."""
        first = self.percents.index(percent) * len(self.pictures)
        for numbers in torch.arange(first, first + len(self.pictures)).split(size):
            yield self.batch(numbers.tolist())

    def shuffled(self, size: int, seed: int) -> Iterator[list[int]]:
        """Numbers of views in batches without end: all in random order, and again. size: at most len(self)."""
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(len(self), generator=generator)
            for numbers in order[: len(self) // size * size].split(size):
                yield numbers.tolist()

    def batch(self, numbers: Sequence[int]) -> Batch:
        """The classifier's inputs for views, and their class numbers, as tensors that autograd takes."""
        new = self._make([number for number in numbers if number not in self._kept])
        views = [new[number] if number in new else self._kept[number] for number in numbers]
        self._keep(new)
        with torch.inference_mode(False):
            inputs = tuple(torch.stack(parts).to(self.device, torch.float32) for parts in zip(*views))
            labels = [self.pictures.labels[number % len(self.pictures)] for number in numbers]
            return inputs, torch.tensor(labels, device=self.device)

    @torch.inference_mode()
    def _make(self, numbers: Sequence[int]) -> dict[Key, tuple[torch.Tensor, ...]]:
        by_percent = defaultdict(list)
        for number in numbers:
            by_percent[self.percents[number // len(self.pictures)]].append(number)
        return {
            number: tuple(part.cpu().clone() for part in parts)
            for percent, group in by_percent.items()
            for number, *parts in zip(group, *self._look(percent, group))
        }

    def _look(self, percent: float, numbers: list[int]) -> tuple[torch.Tensor, ...]:
        indices = [number % len(self.pictures) for number in numbers]
        if percent == FINISHED:
            return self.view.finished(torch.stack([self.pictures[i][0] for i in indices]))
        assert isinstance(self.view, PredictionView)  # pictures themselves are finished
        latents = self._latents(self.view, indices)
        return self.view.unfinished(latents, percent, [self._noise_seed(number) for number in numbers])

    def _noise_seed(self, number: int) -> int:
        return int.from_bytes(sha256(f"{self.seed} {number}".encode()).digest()[:8], "big")

    def _latents(self, view: PredictionView, indices: list[int]) -> torch.Tensor:
        new = [i for i in indices if ("latent", i) not in self._kept]
        made: dict[Key, tuple[torch.Tensor, ...]] = {}
        if new:
            latents = view.encode(torch.stack([self.pictures[i][0] for i in new]))
            made = {("latent", i): (latent.cpu().clone(),) for i, latent in zip(new, latents)}
        found = [(made.get(("latent", i)) or self._kept["latent", i])[0] for i in indices]
        self._keep(made)
        return torch.stack(found)

    def _keep(self, new: dict[Key, tuple[torch.Tensor, ...]]) -> None:
        for key, parts in new.items():
            size = sum(part.nbytes for part in parts)
            self.full = self.full or size > self._room
            if not self.full:
                self._room -= size
                self._kept[key] = parts


def example_views(
    view: PictureView, pictures: Pictures, percents: str, device: torch.device, seed: str = "measured"
) -> ExampleViews:
    """All views of pictures: finished alone where no model shows others. Raises ValueError for fewer than two pictures."""
    if len(pictures) < 2:
        raise ValueError(
            f"image_folder: {len(pictures)} pictures are too few to measure. Add some: a fifth of each class is held out, "
            "and those have to be two or more."
        )
    chosen = parse_percents(percents) if isinstance(view, PredictionView) else (FINISHED,)
    return ExampleViews(view, pictures, chosen, device, seed)
