"""All views of a folder's pictures, in batches: each picture at each share of the sampling, with its own noise.

A view is made when it is first asked for, and kept while there is memory for it. Where there is none left, views of the
next batches can be made together, so that the models that make them are loaded once for all of these.
"""

from collections import ChainMap, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from hashlib import sha256

import comfy.model_management
import torch

from ...guidance_core.fine_tuning import Batch
from ..common.want_of_memory import saying_what_to_change, with_fewer_at_once
from .guidance_view import FINISHED, PictureView, PredictionView, parse_percents
from .pictures import Pictures

MEMORY_SHARE = 0.25  # of what is free at the start
SHARE_AHEAD = 0.05  # of the same, for views that are made ahead and not kept
BATCH = 16  # pictures looked at together, at most
SHORT_OF_MEMORY = "Memory is too short for what the model makes of a single picture. Choose a smaller resolution, or decode = taesd or half."
Key = int | tuple[str, int]  # of a view, or of a picture's "latent"


class ExampleViews:
    """Views are numbered from 0: all pictures at the first percent, then all at the second, and so on.

    device: of the batches. seed: any text; of the noise, which differs from view to view.
    """

    def __init__(
        self, view: PictureView, pictures: Pictures, percents: Sequence[float], device: torch.device, seed: str
    ) -> None:
        self.view, self.pictures, self.percents, self.device, self.seed = view, pictures, percents, device, seed
        self._at_once = BATCH
        self.full = False  # whether views are made anew each time, for lack of memory
        self._kept: dict[Key, tuple[torch.Tensor, ...]] = {}
        self._ahead: dict[Key, tuple[torch.Tensor, ...]] = {}
        self._largest = 1  # bytes of a view
        free = comfy.model_management.get_free_memory(torch.device("cpu"))
        self._room, self._room_ahead = MEMORY_SHARE * free, SHARE_AHEAD * free

    def __len__(self) -> int:
        return len(self.pictures) * len(self.percents)

    def batches(self, percent: float, size: int) -> Iterator[Batch]:
        """All pictures at one percent."""
        for numbers in self.in_order(percent, size):
            yield self.batch(numbers)

    def in_order(self, percent: float, size: int) -> Iterator[list[int]]:
        """Numbers of the views of all pictures at one percent, in batches."""
        first = self.percents.index(percent) * len(self.pictures)
        for numbers in torch.arange(first, first + len(self.pictures)).split(size):
            yield numbers.tolist()

    def shuffled(self, size: int, seed: int) -> Iterator[list[int]]:
        """Numbers of views in batches without end: all in random order, and again. size: at most len(self)."""
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(len(self), generator=generator)
            for numbers in order[: len(self) // size * size].split(size):
                yield numbers.tolist()

    def batches_ahead(self, size: int) -> int:
        """For how many batches to make views ahead: 1 as long as views are kept."""
        return max(int(self._room_ahead // (self._largest * size)), 1) if self.full else 1

    def make_ahead(self, numbers: Iterable[int]) -> bool:
        """Makes the views that batches ask for next, in the place of those that were made ahead before. Whether there were
        any to make. Raises ComfyUI's InterruptProcessingException."""
        self._ahead = {}
        new = sorted({*numbers} - self._kept.keys())  # those of one percent together
        for start in range(0, len(new), BATCH):
            comfy.model_management.throw_exception_if_processing_interrupted()
            made = self._make(new[start : start + BATCH])
            self._ahead |= made
            self._keep(made)
        return bool(new)

    def batch(self, numbers: Sequence[int]) -> Batch:
        """The classifier's inputs for views, and their class numbers, as tensors that autograd takes."""
        known = ChainMap(self._kept, self._ahead)
        new = self._make([number for number in numbers if number not in known])
        views = [new[number] if number in new else known[number] for number in numbers]
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
        made: dict[Key, tuple[torch.Tensor, ...]] = {}
        with saying_what_to_change(SHORT_OF_MEMORY):
            for percent, group in by_percent.items():
                new, self._at_once = with_fewer_at_once(partial(self._made, percent, group), self._at_once)
                made |= new
        return made

    def _made(self, percent: float, numbers: list[int], at_once: int) -> dict[Key, tuple[torch.Tensor, ...]]:
        """Views at one percent, so many at once."""
        together = (numbers[start : start + at_once] for start in range(0, len(numbers), at_once))
        return {
            number: tuple(part.cpu().clone() for part in parts)
            for some in together
            for number, *parts in zip(some, *self._look(percent, some))
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
            self._largest = max(self._largest, size)
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
