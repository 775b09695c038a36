"""What this pack's own loaders make, by the names of the networks. The pack must be loaded before one is built."""

from ..in_process import pack_module
from .network import WIDTH, SmallNetwork, text

DIT = {"width": WIDTH, "depth": 2, "heads": 2, "patch": 2, "side": 2, "classes": 3}
CLASS = text(tokens=1, pooled=None)  # the embedding of one
LOADER = "this pack's loader"

OWN = {
    "DiT": SmallNetwork(DIT, ((4, 4, 4),), CLASS, since=LOADER),
    "SiT": SmallNetwork({**DIT, "flow": True}, ((4, 4, 4),), CLASS, since=LOADER),
}


def own_config(name: str, sizes: dict):
    """ComfyUI's description of a model of these sizes, which are a shape's."""
    shape = pack_module("nodes.class_conditional.dit").DitShape(**sizes)
    settings = pack_module("nodes.class_conditional.dit_file").settings_of(shape, ("cat", "dog"))
    return pack_module("nodes.class_conditional.class_model").ClassModelConfig(settings)
