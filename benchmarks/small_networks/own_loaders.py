"""What this pack's own loaders make, by the names of the networks. The pack must be loaded before one is built."""

from ..in_process import pack_module
from .network import WIDTH, SmallNetwork, text

DIT = {"width": WIDTH, "depth": 2, "heads": 2, "patch": 2, "side": 2, "classes": 3}
CLASS = text(tokens=1, pooled=None)  # the embedding of one
ADM = {
    "width": 32, "depth": 1, "multipliers": (1, 2), "attention_levels": (1,), "classes": 3, "head_channels": 16,
}  # fmt: skip
LOADER = "this pack's loader"

OWN = {
    "ADM": SmallNetwork(ADM, ((3, 8, 8),), text(tokens=1, width=128, pooled=None), since=LOADER),
    "DiT": SmallNetwork(DIT, ((4, 4, 4),), CLASS, since=LOADER),
    "SiT": SmallNetwork({**DIT, "flow": True}, ((4, 4, 4),), CLASS, since=LOADER),
}


def own_config(name: str, sizes: dict):
    """ComfyUI's description of a model of these sizes, which are a shape's."""
    wing = "nodes.class_conditional"
    if name == "ADM":
        shape = pack_module(f"{wing}.adm_unet").AdmShape(**sizes)
        settings = pack_module(f"{wing}.adm_unet_file").settings_of(shape, ("cat", "dog"), "linear")
    else:
        shape = pack_module(f"{wing}.dit").DitShape(**sizes)
        settings = pack_module(f"{wing}.dit_file").settings_of(shape, ("cat", "dog"))
    return pack_module(f"{wing}.class_model").ClassModelConfig(settings)
