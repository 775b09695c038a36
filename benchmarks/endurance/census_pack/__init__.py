"""A node pack for the server of `benchmarks.endurance` alone: a node that counts what the server's process holds, and one that
has ComfyUI keep what it is wired to."""

import ctypes
import gc
import json
import warnings

import torch
from comfy import model_management

LIBC = ctypes.CDLL(None)


class Census:
    """Looks at the process in the thread that runs prompts, where nothing else runs meanwhile."""

    RETURN_TYPES = ()
    FUNCTION = "count"
    CATEGORY = "endurance"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    @classmethod
    def IS_CHANGED(cls):
        return float("nan")

    def count(self):
        gc.collect()
        if hasattr(LIBC, "malloc_trim"):  # glibc keeps what was freed, which is no leak
            LIBC.malloc_trim(0)
        with warnings.catch_warnings(action="ignore"):  # of objects that warn when they are looked at
            # By their types: isinstance would ask proxies, which may make what they stand for.
            tensors = [found for found in gc.get_objects() if issubclass(type(found), torch.Tensor)]
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
        counted = {
            "tensors": len(tensors),
            "tensors, MiB": sum(storages.values()) / 2**20,
            "loaded models": len(model_management.current_loaded_models),
        }
        return {"ui": {"text": [json.dumps(counted)]}}


class Keep:
    """Has ComfyUI run the node that it is wired to, and keep its output."""

    RETURN_TYPES = ()
    FUNCTION = "keep"
    CATEGORY = "endurance"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"loaded": ("*", {})}}

    def keep(self, loaded):
        return {}


NODE_CLASS_MAPPINGS = {"Census": Census, "Keep": Keep}
