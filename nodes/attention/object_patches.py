"""Object patches that go with a clone of a model, also where it gets another copy of the network (one for each GPU)."""

from collections.abc import Callable
from functools import partial
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP


def add_patches(model: ModelPatcher, key: str, patch: Callable[[ModelPatcher], tuple[str, ...]]) -> None:
    """Runs `patch`, which adds object patches and returns the names of what they replace, once for a model and its clones."""
    if key in model.attachments:
        return
    model.set_attachments(key, patch(model))
    model.add_callback_with_key(CallbacksMP.ON_CLONE, key, partial(_follow, key, patch))


def _follow(key: str, patch: Callable[..., Any], original: ModelPatcher, clone: ModelPatcher) -> None:
    """A clone with another copy of the network needs patches that are bound to that copy."""
    if clone.model is original.model:
        return
    for name in clone.get_attachment(key):
        clone.object_patches.pop(name, None)
    patch(clone)
