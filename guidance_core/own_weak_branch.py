"""Guidance away from a weak branch of the positive condition itself, on top of whatever a sampler's own guidance gave.

    D = D_sampler + s · (D_pos − D_weak(c_pos))

D_weak is the model with a flatter attention energy (Entropy Rectifying Guidance, https://arxiv.org/abs/2504.13987) on the
*same* condition, so that no negative one is needed: at cfg 1, where D_sampler = D_pos, this is ERG with w = 1 + s.

The rescale is that of https://arxiv.org/abs/2305.08891 (section 3.4), which takes back the contrast that guidance adds:

    D ← φ · D · std(D_pos) / std(D) + (1 − φ) · D,   each standard deviation over all values of one picture
"""

import torch


def guide(guided: torch.Tensor, difference: torch.Tensor, scale: float) -> torch.Tensor:
    """D of x0 predictions [B, ...]. guided: D_sampler. difference: D_pos − D_weak. scale: s ≥ 0; 0 changes nothing."""
    return torch.add(guided, difference, alpha=scale)


def spread(prediction: torch.Tensor) -> torch.Tensor:
    """The standard deviation over each picture of a prediction [B, ...]: [B, 1, ...], in float32."""
    return prediction.float().std(dim=tuple(range(1, prediction.ndim)), keepdim=True)


def rescale(guided: torch.Tensor, target: torch.Tensor, share: float) -> torch.Tensor:
    """A prediction [B, ...] with its spread led towards another's. target: `spread` of D_pos. share: φ in 0..1.

    A prediction without any spread stays as it is.
    """
    ratio = target / spread(guided)
    factor = torch.where(ratio.isfinite(), share * ratio + (1 - share), 1.0)
    return guided * factor.to(guided.dtype)
