"""ComfyUI's progress bar, which also notices that the artist has pressed Interrupt."""

from typing import Any

import comfy.model_management
import comfy.utils


class Progress:
    """Called once for each of `total` pieces of work, after it is done. Raises ComfyUI's InterruptProcessingException."""

    def __init__(self, total: int) -> None:
        self.bar, self.done = comfy.utils.ProgressBar(max(total, 1)), 0

    def __call__(self, preview: Any = None) -> None:
        """preview: a PIL image for the node, or None."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self.done += 1
        self.bar.update_absolute(self.done, preview=preview and ("JPEG", preview, None))
