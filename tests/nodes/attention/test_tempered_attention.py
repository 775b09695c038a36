"""The general energy on every layout in which ComfyUI's networks call attention, against Algorithm 2 written out."""

import pytest
import torch
from comfy.ldm.modules.attention import attention_basic, attention_pytorch, attention_split, attention_sub_quad

from benchmarks.in_process import pack_module
from benchmarks.tolerance import assert_agree

BATCH, HEADS, QUERIES, WIDTH = 4, 2, 6, 8
ENERGIES = [(0.3, 0.8, 1.0, 1), (1.0, 1.0, 1.5, 1), (0.3, 1.0, 1.0, 3), (0.4, 0.9, 0.7, 2)]


def tensors(keys: int, heads: int = HEADS, width: int = WIDTH, seed: int = 0):
    """q, k, v: [B, H, N, D]."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (HEADS, QUERIES, WIDTH), (heads, keys, WIDTH), (heads, keys, width)
    return [torch.randn(BATCH, *shape, generator=generator) for shape in shapes]


def algorithm_2(q, k, v, energy, mask=None):
    """The paper's loop in float64; α = γ = τ = K = 1 is attention itself."""
    tau, alpha, gamma, iterations = energy
    state, k, v = (t.double().repeat_interleave(HEADS // t.shape[1], 1) for t in (q, k, v))
    for _ in range(iterations):
        logits = tau * state @ k.mT / WIDTH**0.5
        if mask is not None:
            logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask.double()
        state = state - gamma * (state - alpha * logits.softmax(-1) @ v)
    return state


def run(node, attention, energy, weak, q, k, v, **kwargs):
    """Attention with the energy for weak chunks, as ComfyUI calls an override."""
    tempered, energies = (
        pack_module("nodes.attention.tempered_attention"),
        pack_module("guidance_core.attention_energy"),
    )
    layers = pack_module("nodes.attention.layers").LayerMap({"call 0": 0}, ("call 0",))
    tau, alpha, gamma, iterations = energy
    parameters = energies.AttentionEnergy(tau, alpha, gamma, iterations)
    override = tempered.TemperedAttention(
        parameters, "all", torch.nn.Identity(), layers, frozenset({0}), weak, weak, (), None, None, {}
    )
    options = {"optimized_attention_override": override}
    return attention(q, k, v, HEADS, transformer_options=options, **kwargs)


def expected(q, k, v, energy, weak, mask=None):
    rows = torch.tensor(weak).repeat_interleave(BATCH // len(weak)).view(-1, 1, 1, 1)
    return torch.where(rows, algorithm_2(q, k, v, energy, mask), algorithm_2(q, k, v, (1, 1, 1, 1), mask)).float()


def merged(t):
    """[B, H, N, D] to [B, N, H·D]."""
    return t.transpose(1, 2).flatten(2)


def check(found, wanted) -> None:
    assert_agree(found, wanted)


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("weak", [(False, True), (True, False, False, True), (True,)])
@pytest.mark.parametrize("attention", [attention_basic, attention_pytorch, attention_split, attention_sub_quad])
@pytest.mark.parametrize("keys", [QUERIES, 9])
def test_merged_and_split_heads(node, energy, weak, attention, keys):
    q, k, v = tensors(keys)
    wanted = expected(q, k, v, energy, weak)
    check(run(node, attention, energy, weak, *map(merged, (q, k, v))), merged(wanted))
    check(run(node, attention, energy, weak, q, k, v, skip_reshape=True), merged(wanted))
    check(run(node, attention, energy, weak, q, k, v, skip_reshape=True, skip_output_reshape=True), wanted)
    check(run(node, attention, energy, weak, *map(merged, (q, k, v)), skip_output_reshape=True), wanted)


@pytest.mark.parametrize("energy", ENERGIES)
def test_grouped_queries(node, energy):
    q, k, v = tensors(9, heads=1)
    wanted = expected(q, k, v, energy, (True, False))
    for attention in (attention_pytorch, attention_basic):
        found = run(node, attention, energy, (True, False), q, k, v, skip_reshape=True, enable_gqa=True)
        check(found, merged(wanted))


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize(
    "shape", [(BATCH, 1, 1, 9), (BATCH, 1, QUERIES, 9), (BATCH, HEADS, QUERIES, 9), (1, 1, QUERIES, 9)]
)
@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_masks(node, energy, shape, kind):
    """Masks of their own for each row follow their rows; one that all rows share stays as it is."""
    q, k, v = tensors(9)
    generator = torch.Generator().manual_seed(1)
    mask = (
        torch.rand(shape, generator=generator) > 0.3 if kind == torch.bool else torch.randn(shape, generator=generator)
    )
    if kind == torch.bool:
        mask[..., 0] = True
    wanted = expected(q, k, v, energy, (False, True), mask)
    found = run(node, attention_pytorch, energy, (False, True), q, k, v, mask=mask, skip_reshape=True)
    check(found, merged(wanted))
    if shape[0] == 1:  # two dimensions, and given by place
        found = attention_by_place(node, energy, (False, True), q, k, v, mask[0, 0])
        check(found, merged(wanted))


def attention_by_place(node, energy, weak, q, k, v, mask):
    def attention(q, k, v, heads, transformer_options, **kwargs):
        return attention_pytorch(q, k, v, heads, mask, transformer_options=transformer_options, **kwargs)

    return run(node, attention, energy, weak, q, k, v, skip_reshape=True)


@pytest.mark.parametrize("energy", ENERGIES)
def test_rows_that_are_folded(node, energy):
    """Video networks fold frames into the batch, frame by frame of one picture after the other."""
    q, k, v = tensors(9)
    wanted = expected(q, k, v, energy, (True, False))  # four rows of two chunks: two frames each
    check(run(node, attention_pytorch, energy, (True, False), *map(merged, (q, k, v))), merged(wanted))


@pytest.mark.parametrize("energy", ENERGIES)
def test_values_of_another_width_are_an_error(node, energy):
    """A state of queries cannot be replaced by a wider value, but scaling queries alone always works."""
    q, k, v = tensors(QUERIES, width=2 * WIDTH)

    def attention(q, k, v, heads, transformer_options, **kwargs):
        def wide(q, k, v, heads, transformer_options, skip_reshape, skip_output_reshape):
            return (q @ k.mT / WIDTH**0.5).softmax(-1) @ v

        return transformer_options["optimized_attention_override"](
            wide, q, k, v, heads, transformer_options=transformer_options, **kwargs
        )

    split = {"skip_reshape": True, "skip_output_reshape": True}
    with pytest.raises(
        RuntimeError, match="mix queries .* with values .*, which differ in width in this model: set all three to 1"
    ):
        run(node, attention, energy, (True, False), q, k, v, **split)
    temperatures = torch.tensor([0.3, 0.3, 1.0, 1.0]).view(-1, 1, 1, 1)
    found = run(node, attention, (0.3, 1.0, 1.0, 1), (True, False), q, k, v, **split)
    check(found, (temperatures * q @ k.mT / WIDTH**0.5).softmax(-1) @ v)


def test_lists_of_rows_keep_one_length_within(node):
    """For overrides of other nodes, which see the weak rows alone from the second step on."""
    seen = []

    def within(q, k, v, heads, transformer_options, **kwargs):
        seen.append((len(q), transformer_options["cond_or_uncond"], transformer_options["uuids"]))
        return attention_basic(q, k, v, heads)

    def attention(q, k, v, heads, transformer_options):
        options = {**transformer_options, "cond_or_uncond": [0, 1], "uuids": ["positive", "negative"]}
        return options["optimized_attention_override"](within, q, k, v, heads, transformer_options=options)

    run(node, attention, (0.3, 1.0, 1.0, 2), (False, True), *map(merged, tensors(9)))
    assert seen == [(BATCH, [0, 1], ["positive", "negative"]), (BATCH // 2, [1], ["negative"])]
