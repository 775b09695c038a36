"""Fine-tuning with a held-out loss that says when to stop, and which weights to keep.

The module stays in evaluation mode: dropout is off and batch statistics are those of its training, so that batches of
any size leave them alone.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

CHECKS = 20  # of the held-out loss in a whole run
PATIENCE = 6  # checks without a better one, after which it stops
Batch = tuple[tuple[Tensor, ...], Tensor]  # the module's inputs, and class numbers [n]


@dataclass
class FineTuning:
    """Trains a module in place.

    objective: from logits [n, N] and class numbers [n] to a loss. held_out: batches that are not trained on, gone
    through at each check.

    best_step, best_loss: of the lowest held-out loss, step 0 being the module as it came. stopped: why it ended
    before its last step, or empty. losses, held_out_losses: by step.
    """

    module: torch.nn.Module
    objective: Callable[[Tensor, Tensor], Tensor]
    held_out: Callable[[], Iterable[Batch]]
    learning_rate: float
    steps: int
    best_step: int = 0
    best_loss: float = math.inf
    stopped: str = ""
    losses: dict[int, float] = field(default_factory=dict)
    held_out_losses: dict[int, float] = field(default_factory=dict)

    def run(self, batches: Iterator[Batch]) -> Iterator[int]:
        """Yields the number of each step done, from 1. At the end the module has its best weights.

        Raises ValueError where the module's loss is not finite before the first step.
        """
        optimizer = torch.optim.AdamW(self.module.parameters(), self.learning_rate)
        best = self._check(0)
        if best is None:
            raise ValueError("the classifier's loss on the held-out pictures is not a finite number before training.")
        every = max(self.steps // CHECKS, 1)
        for step in range(1, self.steps + 1):
            inputs, labels = next(batches)
            loss = self.objective(self.module(*inputs), labels)
            self.losses[step] = loss.item()
            if not math.isfinite(self.losses[step]):
                self.stopped = f"the loss of step {step} is not a finite number"
                break
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            if step % every == 0 or step == self.steps:
                best = self._check(step) or best
            yield step
            if self._should_stop(step, every):
                break
        optimizer.zero_grad(set_to_none=True)
        self.module.load_state_dict(best)

    def _should_stop(self, step: int, every: int) -> bool:
        if step in self.held_out_losses and not math.isfinite(self.held_out_losses[step]):
            self.stopped = f"the held-out loss after step {step} is not a finite number"
        elif step - self.best_step >= PATIENCE * every and step < self.steps:
            self.stopped = f"the held-out loss did not fall for {step - self.best_step} steps"
        return bool(self.stopped)

    def _check(self, step: int) -> dict[str, Tensor] | None:
        """The weights where the held-out loss is the lowest so far."""
        loss = self.held_out_losses[step] = self._held_out_loss()
        if not loss < self.best_loss:
            return None
        self.best_step, self.best_loss = step, loss
        return copy.deepcopy(self.module.state_dict())

    @torch.no_grad()
    def _held_out_loss(self) -> float:
        outputs = [(self.module(*inputs), labels) for inputs, labels in self.held_out()]
        logits, labels = (torch.cat(parts) for parts in zip(*outputs))
        return self.objective(logits, labels).item()
