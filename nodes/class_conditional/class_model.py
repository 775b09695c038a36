"""A class-conditional network as a genuine MODEL of ComfyUI, whose condition is the embedding of a class.

An embedding rather than a number, because what changes conditions (CADS, averages, noise) changes vectors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import comfy.conds
import comfy.lora
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.latent_formats import LatentFormat
from torch import Tensor

# The sampling of DDPM's own schedule, by ComfyUI's name for a plain line.
LINEAR = {"beta_schedule": "sqrt_linear", "linear_start": 1e-4, "linear_end": 0.02}


class ClassNetwork(Protocol):
    """What such a network has beside its forward(x, timesteps, context [B, 1, D], transformer_options)."""

    @property
    def class_table(self) -> Tensor | None:
        """The embeddings [rows, D] of the classes, the null class behind them where it has one; None without classes."""

    def check_size(self, height: int, width: int) -> None:
        """Raises ValueError for a latent that the network cannot take."""


@dataclass(frozen=True)
class ClassModelSettings:
    """network: its class, built with shape=, dtype=, device= and operations=. class_names: one for each class; empty for
    a model without. memory: ComfyUI's memory_usage_factor."""

    network: type[ClassNetwork]
    shape: object
    latent: LatentFormat
    prediction: comfy.model_base.ModelType
    sampling: dict[str, Any]
    class_names: tuple[str, ...] = ()
    memory: float = 1.0


class ClassModelConfig(comfy.supported_models_base.BASE):
    """ComfyUI's description of a model, from ours."""

    unet_extra_config: dict[str, Any] = {}

    def __init__(self, settings: ClassModelSettings) -> None:
        self.settings = settings
        self.latent_format = lambda: settings.latent
        self.sampling_settings = settings.sampling
        self.memory_usage_factor = settings.memory
        super().__init__({"shape": settings.shape})

    def get_model(
        self, state_dict: dict[str, Tensor], prefix: str = "", device: torch.device | None = None
    ) -> "ClassConditional":
        """The model with room for its weights."""
        return ClassConditional(self)


class ClassConditional(comfy.model_base.BaseModel):
    """class_names: what its classes are called, by number. null_class: the number that stands for none, or None."""

    def __init__(self, config: ClassModelConfig) -> None:
        super().__init__(config, config.settings.prediction, unet_model=config.settings.network)
        self.class_names = config.settings.class_names
        table = self.diffusion_model.class_table
        self.null_class = len(self.class_names) if table is not None and len(table) > len(self.class_names) else None

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        """Refuses, before the first step, latents and conditions that are not this model's."""
        noise, condition = kwargs["noise"], kwargs.get("cross_attn")
        self._check_latent(noise)
        table = self.diffusion_model.class_table
        if table is None:
            return {}
        if condition is None or condition.shape[1:] != (1, table.shape[1]):
            raise ValueError(
                "positive and negative, or conditioning: this model draws classes and reads no text, so that it has no C-ERG "
                "either. Wire them from Class Condition (with ERG, the negative may be the positive)."
            )
        if len(condition) not in (1, len(noise)):
            raise ValueError(
                f"labels has {len(condition)} classes for a batch of {len(noise)} images: give one class, or {len(noise)}."
            )
        return {"c_crossattn": comfy.conds.CONDCrossAttn(condition)}

    def _check_latent(self, latent: Tensor) -> None:
        channels = self.latent_format.latent_channels
        if latent.ndim != 4 or latent.shape[1] != channels:
            wanted = "EmptyChromaRadianceLatentImage" if channels == 3 else "EmptyLatentImage"
            raise ValueError(
                f"latent_image: this model draws {channels} channels, and the latent has {[*latent.shape[1:]]}. Use "
                f"{wanted}, or encode with the VAE of this model ('pixel_space' for 3 channels)."
            )
        self.diffusion_model.check_size(*latent.shape[-2:])


def class_model(
    settings: ClassModelSettings,
    weights: dict[str, Tensor],
    reload: tuple[Callable[..., Any], tuple[Any, ...]],
    disable_dynamic: bool,
) -> comfy.model_patcher.ModelPatcher:
    """A MODEL as ComfyUI's own loader would make it. weights: those of the network, which have been checked.

    reload: a function with a disable_dynamic argument and its other arguments, which make the same MODEL again.
    """
    management, config = comfy.model_management, ClassModelConfig(settings)
    device, supported = management.get_torch_device(), config.supported_inference_dtypes
    dtype = management.unet_dtype(model_params=comfy.utils.calculate_parameters(weights), supported_dtypes=supported)
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, supported))
    model = config.get_model(weights)
    patcher_class = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = patcher_class(model, load_device=device, offload_device=management.unet_offload_device())
    model.load_model_weights(weights, "", assign=patcher.is_dynamic())
    patcher.cached_patcher_init = reload
    return patcher


def held_to_pictures(args: dict[str, Any]) -> Tensor:
    """A sampler_post_cfg_function of ComfyUI: the prediction, held to the range of pictures."""
    return args["denoised"].clamp(-1, 1)


def class_condition(model: comfy.model_patcher.ModelPatcher, classes: tuple[int, ...]) -> list[Any]:
    """CONDITIONING of classes, one for all pictures or one each; a model without classes takes any. model: of a ClassConditional."""
    table = model.model.diffusion_model.class_table
    if table is None:
        return [[torch.zeros(1, 1, 1), {}]]
    rows = _with_own_patches(table, model)[list(classes)].to(
        comfy.model_management.intermediate_device(), torch.float32
    )
    return [[rows[:, None], {}]]


def _with_own_patches(weight: Tensor, model: comfy.model_patcher.ModelPatcher) -> Tensor:
    """A weight of the network as this MODEL has it, a merge for one, whichever clone's patches are loaded."""
    key = next(name for name, parameter in model.model.named_parameters() if parameter is weight)
    (original, convert), *patches = model.get_key_patches(key)[key]
    original = convert(original.detach().clone(), inplace=True)
    return comfy.lora.calculate_weight(patches, original.float(), key) if patches else original
