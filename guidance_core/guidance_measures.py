"""What guidance does in a step, in numbers that mean the same for every model.

    size of guidance:      ‖D − D_pos‖ / ‖D_pos‖
    its angle:             ∠( D − D_pos, D_pos )
    relative entropy:      H( softmax(l) ) / log M,   M the number of keys that a query may attend to

D is the guided x0 prediction and D_pos that of the positive condition alone. A large angle changes what the picture shows; a
small one only makes more of it, which burns colours. An attention that looks at everything alike has relative entropy 1.
"""

import math

import torch

from .attention_energy import entropy

NOT_ALLOWED = -1e4  # a bias below it keeps a key out, whatever its logit


def size_and_angle(guided: torch.Tensor, positive: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of guidance in each picture: its size as a share of the positive prediction, and its angle to that in 0..180 degrees.

    guided, positive: D and D_pos, [B, ...] both. Returns [B] twice, in float32; the angle of no guidance is NaN.
    """
    positive = positive.flatten(1).float()
    guidance = guided.flatten(1).float() - positive
    size, length = guidance.norm(dim=1), positive.norm(dim=1)
    cosine = (guidance * positive).sum(1) / (size * length)
    return size / length, cosine.clamp(-1, 1).acos() * (180 / math.pi)


def relative_entropy(logits: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """H/log M in 0..1 of attention logits [..., M], in float32: [...].

    bias: what is added to them, of a shape that expands to theirs; keys below `NOT_ALLOWED` are not counted in M. A query with
    a single key, or none, looks at all that there is alike: 1.
    """
    logits = logits.float()
    if bias is None:
        keys = logits.shape[-1]
        return entropy(logits) / math.log(keys) if keys > 1 else torch.ones_like(logits[..., 0])
    bias = bias.float().clamp(min=torch.finfo(torch.float32).min)
    allowed = (bias > NOT_ALLOWED).expand_as(logits).sum(-1).float()
    return torch.where(allowed > 1, entropy(logits + bias) / allowed.log(), 1.0)
