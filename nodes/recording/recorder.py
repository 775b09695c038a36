"""The GUIDANCE_RECORD of a graph: what guidance did in the last samplings with a recorded model.

ComfyUI keeps what nodes gave in earlier runs: a latent may be older than the last sampling, and the latent may be there still when
the record's own node runs again. So some samplings are remembered, whichever run they were in, and each is known by what it drew.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy_api.latest import io

from ..attention.reach import reach_attention
from .recording import KEY, Recording
from .sampling_record import CLOSE, SamplingRecord

RecordSocket = io.Custom("GUIDANCE_RECORD")
REMEMBERED = 32  # samplings, of at most half a megabyte each

_finished: deque[tuple[object, SamplingRecord]] = deque(maxlen=REMEMBERED)  # with the node of each


@dataclass(frozen=True)
class Recorder:
    """node: the id of the node that it is of; something of its own outside of a graph."""

    node: object = field(default_factory=object)

    def add_to(self, model: ModelPatcher) -> None:
        """Adds a wrapper to a ModelPatcher, and what its network needs for its attention to be seen."""
        if isinstance(model.model.diffusion_model, torch.nn.Module):  # no compiled engine
            reach_attention(model)
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, self.sample)

    def sample(
        self,
        executor: WrapperExecutor,
        noise: torch.Tensor,
        latent_image: torch.Tensor,
        sampler: Any,
        sigmas: torch.Tensor,
        denoise_mask: torch.Tensor | None = None,
        callback: Callable[..., Any] | None = None,
        disable_pbar: bool = False,
        seed: int | None = None,
        **others: Any,
    ) -> Any:
        """A wrapper for ComfyUI's OUTER_SAMPLE. A sampling that fails leaves no record."""
        guider = executor.class_obj
        recording = Recording(guider, sigmas, others.get("latent_shapes"))
        with recording.watching(guider.model_options):
            output = executor(
                noise,
                latent_image,
                sampler,
                sigmas,
                denoise_mask,
                recording.counting(callback),
                disable_pbar,
                seed,
                **others,
            )
        _finished.append((self.node, recording.finish(output)))
        return output

    def of(self, latent: torch.Tensor) -> SamplingRecord:
        """The record of the sampling that drew a latent, [B, C, ...]. Raises ValueError where there is none."""
        own = [record for node, record in reversed(_finished) if node == self.node]
        if not own:
            raise ValueError(
                "record: nothing was sampled with the recorded model. Wire the MODEL output of Record Guidance to the sampler "
                "(or its guider), and that sampler's LATENT output to this node's latent."
            )
        found = min(own, key=lambda record: record.difference(latent))
        if found.difference(latent) > CLOSE:
            raise ValueError(
                f"latent: none of the last {len(own)} recorded samplings drew it. Wire the LATENT output of the sampler that runs "
                "the recorded model straight to this node, and the record of the Record Guidance node before that sampler."
                + " If it was drawn longer ago, change the sampler's seed or run it anew."
                * (len(_finished) == REMEMBERED)
            )
        return found
