"""The demo model's twin of another kind: a U-Net on the same latents and prompts, as a genuine ComfyUI MODEL.

ComfyUI's own class for SD1.5 and SDXL, shrunk: 8 transformer blocks at half of the latent's size, each with self- and
cross-attention. `python -m benchmarks.train_unet_twin` makes its weights; they stay in `.dev/benchmarks`.
"""

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models_base
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from safetensors.torch import load_file

from demo.architecture import TEXT_CONFIG
from demo.loader import load_diffusion_model
from tools.environment import DEV

FOLDER = DEV / "benchmarks" / "unet_twin"
WEIGHTS = FOLDER / "diffusion.safetensors"
TIME_SCALE = 1000  # the network is told a time in 0..1 as SD's are told theirs
CONFIG = {
    "image_size": 16, "in_channels": 4, "out_channels": 4, "model_channels": 32, "channel_mult": [1, 2],
    "num_res_blocks": [1, 3], "num_head_channels": 16, "use_spatial_transformer": True,
    "use_linear_in_transformer": True, "context_dim": TEXT_CONFIG["hidden_size"],
    "transformer_depth": [0, 1, 1, 1], "transformer_depth_middle": 1, "transformer_depth_output": [0, 0, 1, 1, 1, 1],
}  # fmt: skip


class UNetTwinConfig(comfy.supported_models_base.BASE):
    """Flow matching without a time shift, as the demo model's."""

    unet_extra_config = {}
    sampling_settings = {"shift": 1.0, "multiplier": TIME_SCALE}
    memory_usage_factor = 0.5

    def __init__(self, latent):
        self.latent_format = lambda: latent
        super().__init__(CONFIG)

    def model_type(self, state_dict, prefix=""):
        return comfy.model_base.ModelType.FLOW


def network(operations, dtype=torch.float32) -> UNetModel:
    """The bare network, for training."""
    return UNetModel(**CONFIG, dtype=dtype, operations=operations)


def unet_twin() -> comfy.model_patcher.ModelPatcher:
    """The trained twin."""
    if not WEIGHTS.exists():
        raise FileNotFoundError(f"{WEIGHTS} is not there yet: run 'python -m benchmarks.train_unet_twin' first.")
    weights = load_file(WEIGHTS)
    config = UNetTwinConfig(load_diffusion_model().model.latent_format)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model(weights, "")
    model.load_model_weights(weights, "")
    management = comfy.model_management
    return comfy.model_patcher.ModelPatcher(model, management.get_torch_device(), management.unet_offload_device())
