"""Nodes for the tests alone: a MODEL and a CLIP with no attention that the pack could reach."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))  # linked into custom_nodes

from benchmarks import random_models


class UnreachableModel:
    RETURN_TYPES = ("MODEL", "CONDITIONING", "CONDITIONING")
    FUNCTION = "make"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def make(self):
        return random_models.without_attention(), *random_models.conditions()


class UnreachableClip(UnreachableModel):
    RETURN_TYPES = ("CLIP",)

    def make(self):
        return (random_models.unreachable_clip(),)


NODE_CLASS_MAPPINGS = {"UnreachableModel": UnreachableModel, "UnreachableClip": UnreachableClip}
