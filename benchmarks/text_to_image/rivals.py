"""Guidance by perturbed attention, smoothed energy and self-attention, on the demo model's joint attention.

Core's nodes for PAG and SAG change the middle block of a U-Net, which Flux's class does not have, and core has no SEG. Here
they are in the same form: after guidance, a further evaluation of the positive branch that is worse, to be led away from.

PAG, https://arxiv.org/abs/2403.17377: in some layers, a picture's token attends to itself alone.
SEG, https://arxiv.org/abs/2408.00760: in some layers, the queries of a picture's tokens are blurred; σ → ∞ is their mean.
SAG, https://arxiv.org/abs/2210.00939: what the prediction shows where attention is high is blurred, and noise put back.
"""

from collections.abc import Callable
from functools import partial

import comfy.samplers
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from guidance_core.layer_selection import parse_layers

OVERRIDE = "optimized_attention_override"
DOUBLE_BLOCKS, BLOCKS = 2, 12  # of the demo model; single blocks follow the double ones
METHODS = ("PAG", "SEG", "SAG")
BLUR = 9  # pixels, SAG's kernel at most


def add(model, method: str, scale: float, layers: str, sigma: float = 0.0):
    """A clone of a MODEL that is guided so. layers: in the words of the pack's nodes. sigma: of SEG's blur, in tokens (infinite for the
    mean), or of SAG's, in pixels of the latent."""
    clone = model.clone()
    chosen = parse_layers(layers).choose([None] * BLOCKS)
    if method == "SAG":
        _add_sag(clone, scale, chosen, sigma)
    else:
        weak = {"PAG": attend_to_itself, "SEG": partial(smooth_queries, sigma=sigma)}[method]
        clone.set_model_sampler_post_cfg_function(partial(_away_from, weak=weak, scale=scale, layers=chosen))
    return clone


def _away_from(given: dict, weak: Callable, scale: float, layers: frozenset[int]) -> Tensor:
    override = partial(_in_layers, weak, layers)
    worse = _evaluate(given, given["cond"], given["input"], override)
    return given["denoised"] + scale * (given["cond_denoised"] - worse)


def _evaluate(given: dict, condition: list, x: Tensor, override: Callable | None = None) -> Tensor:
    options = given["model_options"]
    if override is not None:
        options = {**options, "transformer_options": {**options.get("transformer_options", {}), OVERRIDE: override}}
    return comfy.samplers.calc_cond_batch(given["model"], [condition], x, given["sigma"], options)[0]


def _in_layers(weak: Callable, layers: frozenset[int], attention: Callable, q, k, v, heads, *args, **kwargs) -> Tensor:
    if _layer(kwargs["transformer_options"]) not in layers:
        return attention(q, k, v, heads, *args, **kwargs)
    return weak(attention, q, k, v, heads, *args, **kwargs)


def _layer(options: dict) -> int:
    return options["block_index"] + (DOUBLE_BLOCKS if options["block_type"] == "single" else 0)


def _picture(tokens: Tensor) -> tuple[slice, int]:
    """Where a picture's tokens [..., N, D] are, which stand behind the text's, and how many to a side."""
    side = 8
    return slice(tokens.shape[-2] - side * side, None), side


def attend_to_itself(attention: Callable, q, k, v, heads, *args, **kwargs) -> Tensor:
    """q, k, v [B, heads, N, D] give [B, N, heads · D]."""
    out = attention(q, k, v, heads, *args, **kwargs)
    tokens, _ = _picture(v)
    out[:, tokens] = v[:, :, tokens].transpose(1, 2).flatten(2)
    return out


def smooth_queries(attention: Callable, q, k, v, heads, *args, sigma: float, **kwargs) -> Tensor:
    """q, k, v [B, heads, N, D] give [B, N, heads · D]."""
    tokens, side = _picture(q)
    grid = q[:, :, tokens].transpose(2, 3).unflatten(-1, (side, side))
    if sigma == float("inf"):
        blurred = grid.mean((-2, -1), keepdim=True).expand_as(grid)
    else:
        blurred = gaussian_blur(grid.flatten(0, 1), 2 * side - 1, sigma).view_as(grid)
    q = q.clone()
    q[:, :, tokens] = blurred.flatten(-2).transpose(2, 3)
    return attention(q, k, v, heads, *args, **kwargs)


def _add_sag(model, scale: float, layers: frozenset[int], sigma: float) -> None:
    seen: list[Tensor] = []  # of each layer [B, tokens]: what each is looked at by all; 1 on average

    def look(attention, q, k, v, heads, *args, **kwargs):
        tokens, _ = _picture(q)
        weights = (q[:, :, tokens] @ k[:, :, tokens].transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        seen.append(weights.mean(1).sum(1))
        return attention(q, k, v, heads, *args, **kwargs)

    def guide(given: dict) -> Tensor:
        x, condition = given["input"], given["cond"]
        seen.clear()
        plain = _evaluate(given, condition, x, partial(_in_layers, look, layers))
        attention = torch.stack(seen).mean(0)
        side = int(attention.shape[-1] ** 0.5)
        where = (attention > 1).to(x.dtype).unflatten(-1, (side, side))[:, None]
        where = torch.nn.functional.interpolate(where, x.shape[-2:])
        blurred = torch.lerp(plain, gaussian_blur(plain, BLUR, sigma), where)
        clean = 1 - given["sigma"].view(-1, 1, 1, 1)  # the share of the picture in x, of a flow model
        worse = _evaluate(given, condition, x + clean * (blurred - plain))
        return given["denoised"] + scale * (blurred - worse)

    model.set_model_sampler_post_cfg_function(guide)
