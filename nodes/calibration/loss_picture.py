"""The losses of a fine-tuning while it runs, for the node's preview."""

from typing import TYPE_CHECKING

from PIL import Image

from ...guidance_core.fine_tuning import FineTuning
from ..drawing.figure import drawn

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def loss_picture(tuning: FineTuning) -> Image.Image:
    """Training loss and held-out loss by step."""

    def draw(figure: "Figure") -> None:
        ax = figure.subplots()
        ax.plot([*tuning.losses], [*tuning.losses.values()], color="0.7", label="training")
        ax.plot([*tuning.held_out_losses], [*tuning.held_out_losses.values()], "o-", color="C3", label="held out")
        ax.axvline(tuning.best_step, color="C2", linestyle=":", label="best so far")
        ax.set(xlabel="step", ylabel="loss", xlim=(0, tuning.steps))
        ax.legend()

    return Image.fromarray(drawn(draw, 4, 3, dpi=70))
