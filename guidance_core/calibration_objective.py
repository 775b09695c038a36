"""What a classifier is fine-tuned on: cross-entropy, and what keeps its confidence honest.

    L = CE + λ · L_ECE + η · KL(u ‖ p)

λ alone is Smooth-ECE fine-tuning (https://arxiv.org/abs/2511.05844), η alone entropy-constrained training, the
paper's baseline; with both 0 it is plain fine-tuning.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from .entropy_constraint import entropy_constraint
from .named_choice import check_choice
from .number_range import check_number
from .smooth_ece import FORMS, smooth_ece


@dataclass(frozen=True)
class CalibrationObjective:
    """ece_weight: λ ≥ 0. ece_beta: β ≥ 0. ece_form: one of smooth_ece.FORMS. entropy_weight: η ≥ 0.

    Raises ValueError for anything else.
    """

    ece_weight: float = 0.0
    ece_beta: float = 1e-3
    ece_form: str = "per_sample"
    entropy_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in ("ece_weight", "ece_beta", "entropy_weight"):
            check_number(name, getattr(self, name), lowest=0)
        check_choice("ece_form", self.ece_form, FORMS)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """L of logits [n, N] and class numbers [n]."""
        loss = F.cross_entropy(logits, labels)
        if self.ece_weight:
            loss = loss + self.ece_weight * smooth_ece(logits, labels, self.ece_beta, self.ece_form)
        if self.entropy_weight:
            loss = loss + self.entropy_weight * entropy_constraint(logits)
        return loss
