"""The flatness of the weak branch: on every layout of an attention call, and in whole networks."""

import pytest
import torch
from comfy.ldm.modules.attention import attention_basic, attention_pytorch, attention_split, attention_sub_quad

from benchmarks import random_models, small_networks
from benchmarks.in_process import pack_module
from benchmarks.one_step import predict
from benchmarks.tolerance import assert_agree

BATCH, HEADS, QUERIES, KEYS, WIDTH = 4, 2, 6, 9, 8
FLATNESS = 0.4


@pytest.fixture(scope="module")
def core(node):
    """The formula, held against its own oracles in tests/guidance_core."""
    return pack_module("guidance_core.attention_flatness")


@pytest.fixture(scope="module")
def flatness(node):
    return pack_module("nodes.attention.flatness")


def erg(node, model, **inputs):
    return node("EntropyGuidanceERG", model=model, **{"layers": "all", "flatness": FLATNESS, **inputs})[0]


def tensors(keys=KEYS, key_heads=HEADS, queries=QUERIES, rows=BATCH):
    """q, k, v: [B, H, N, D], with logits of another size in each row and head."""
    generator = torch.Generator().manual_seed(0)
    shapes = (HEADS, queries, WIDTH), (key_heads, keys, WIDTH), (key_heads, keys, WIDTH)
    q, k, v = (torch.randn(rows, *shape, generator=generator) for shape in shapes)
    return q * torch.linspace(0.5, 6, rows * HEADS).view(rows, HEADS, 1, 1), k, v


def merged(t):
    """[B, H, N, D] to [B, N, H·D]."""
    return t.transpose(1, 2).flatten(2)


def run(attention, weak, partners, q, k, v, options=None, **kwargs):
    """Attention with a flatness for weak rows, as ComfyUI calls an override. partners: of each labelled row."""
    layers = pack_module("nodes.attention.layers").LayerMap({"call 0": 0}, ("call 0",))
    energy = pack_module("guidance_core.attention_energy").AttentionEnergy(flatness=FLATNESS)
    override = pack_module("nodes.attention.tempered_attention").TemperedAttention(
        energy, "all", torch.nn.Identity(), layers, frozenset({0}), weak, weak, (), None, None, {}, partners
    )
    options = {"optimized_attention_override": override, **(options or {})}
    return attention(q, k, v, HEADS, transformer_options=options, **kwargs)


def expected(core, weak, measured, q, k, v, bias=None, scale=WIDTH**-0.5):
    """Each row's attention written out. measured: for each row of q, the rows whose queries are measured together."""
    k, v = (t.repeat_interleave(HEADS // t.shape[1], 1) for t in (k, v))
    logits = q @ k.mT * scale
    bias = torch.zeros(()) if bias is None else bias
    biases = bias.expand_as(logits)
    temperature = torch.ones(len(q), HEADS)
    for row, rows in enumerate(measured):
        if weak[row]:
            of_rows = (t[list(rows)].transpose(0, 1).flatten(1, 2)[None] for t in (logits, biases))
            temperature[row] = core.temperature_for(next(of_rows), FLATNESS, next(of_rows))[0]
    return (temperature[..., None, None] * logits + biases).softmax(-1) @ v


WEAK, PARTNERS, MEASURED = (False, False, True, True), (0, 1, 0, 1), ([0], [1], [0], [1])


@pytest.mark.parametrize("attention", [attention_basic, attention_pytorch, attention_split, attention_sub_quad])
@pytest.mark.parametrize("keys", [QUERIES, KEYS])
def test_merged_and_split_heads(core, attention, keys):
    q, k, v = tensors(keys)
    wanted = expected(core, WEAK, MEASURED, q, k, v)
    assert_agree(run(attention, WEAK, PARTNERS, *map(merged, (q, k, v))), merged(wanted))
    keys_by_place = (t.transpose(1, 2) for t in (k, v))  # as the face adapter of Wan Animate has them
    assert_agree(run(attention, WEAK, PARTNERS, merged(q), *keys_by_place), merged(wanted))
    assert_agree(run(attention, WEAK, PARTNERS, q, k, v, skip_reshape=True), merged(wanted))
    split = {"skip_reshape": True, "skip_output_reshape": True}
    assert_agree(run(attention, WEAK, PARTNERS, q, k, v, **split), wanted)


def test_grouped_queries_and_a_scale(core):
    q, k, v = tensors(key_heads=1)
    wanted = merged(expected(core, WEAK, MEASURED, q, k, v, scale=0.5))
    inputs = {"enable_gqa": True, "scale": 0.5}
    assert_agree(run(attention_pytorch, WEAK, PARTNERS, q, k, v, skip_reshape=True, **inputs), wanted)
    assert_agree(run(attention_basic, WEAK, PARTNERS, *map(merged, (q, k, v)), **inputs), wanted)


@pytest.mark.parametrize(
    "shape",
    [
        (QUERIES, KEYS),
        (BATCH, QUERIES, KEYS),
        (BATCH, 1, 1, KEYS),
        (1, HEADS, QUERIES, KEYS),
        (BATCH, 1, QUERIES, KEYS),
    ],
)
@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_masks(core, shape, kind):
    """Of keys that may be looked at, and of numbers that are added to the logits and not tempered."""
    q, k, v = tensors()
    generator = torch.Generator().manual_seed(1)
    allowed = torch.rand(shape, generator=generator) > 0.4
    allowed[..., 0] = True
    bias = torch.zeros(shape).masked_fill(~allowed, -torch.inf)
    if kind != torch.bool:
        bias += torch.randn(shape, generator=generator)
    whole = bias[:, None] if bias.ndim == 3 else bias
    wanted = merged(expected(core, WEAK, MEASURED, q, k, v, whole))
    mask = allowed if kind == torch.bool else bias
    assert_agree(run(attention_pytorch, WEAK, PARTNERS, q, k, v, skip_reshape=True, mask=mask), wanted)

    def by_place(q, k, v, heads, transformer_options, **kwargs):
        return attention_pytorch(q, k, v, heads, mask, transformer_options=transformer_options, **kwargs)

    assert_agree(run(by_place, WEAK, PARTNERS, q, k, v, skip_reshape=True), wanted)


def test_the_windows_of_a_picture_share_a_temperature(core):
    """Folded into the batch, a picture's windows one after the other: two rows of the input, two windows each."""
    q, k, v = tensors()
    mask = torch.zeros(BATCH, 1, 1, KEYS)
    mask[::2, ..., 5:] = -torch.inf  # of every first window
    wanted = expected(core, WEAK, ([0, 1],) * 4, q, k, v, mask)
    assert_agree(run(attention_pytorch, (False, True), (0, 0), *map(merged, (q, k, v)), mask=mask), merged(wanted))


def test_rows_of_a_packed_batch_go_by_their_owners(core):
    """Windows of the input's rows 0..3, in any order; 2 and 3 are weak."""
    q, k, v = tensors(rows=6)
    owners = (3, 0, 2, 1, 2, 0)
    weak, measured = (True, False, True, False, True, False), ([3], [1], [1, 5], [3], [1, 5], [1])
    found = run(attention_pytorch, WEAK, PARTNERS, q, k, v, {"entropy_guidance_owners": owners}, skip_reshape=True)
    assert_agree(found, merged(expected(core, weak, measured, q, k, v)))
    # The partner of row 3 is not in this call, and 2's is.
    owners, weak, measured = (3, 0, 2), (True, False, True), ([0], [1], [1])
    q, k, v = (t[:3] for t in (q, k, v))
    found = run(attention_pytorch, WEAK, PARTNERS, q, k, v, {"entropy_guidance_owners": owners}, skip_reshape=True)
    assert_agree(found, merged(expected(core, weak, measured, q, k, v)))


def test_queries_are_spread_over_all_of_them(flatness):
    for count in (1, 63, 64, 65, 100, 4096, 4097):
        spread = flatness.evenly_spread(count, 64)
        assert len(set(spread)) == min(count, 64) and max(spread) < count
        assert max(b - a for a, b in zip([-1, *spread], [*spread, count])) <= 2 * count / len(spread)
    assert len({i % 64 for i in flatness.evenly_spread(64 * 64, 64)}) > 32  # not one column of a picture


def test_few_windows_of_many_are_measured(flatness):
    places = flatness.find_places((None, 0), (0, 1), 2 * 500, 16, torch.device("cpu"))
    assert places.rows.shape == (1, 64) and places.rows.max() < 500 and places.queries.shape == (1,)
    assert places.of_row.tolist() == [0] * 500 + [1] * 500


@pytest.mark.parametrize(
    ("numbers", "names", "weak", "partners"),
    [
        ([0, 1], None, "01", (0, 0)),
        ([1, 0], ("positive", "negative"), "10", (1, 1)),
        ([0, 1, 2], ("negative", "weak", "positive"), "010", (2, 2, 2)),
        ([1, 1, 0, 0], ("positive", "negative"), "1100", (2, 3, 2, 3)),  # regions, as many on both sides
        ([1, 0, 0], ("positive", "negative"), "100", (1, 1, 2)),
        ([1, 1], ("positive", "negative"), "11", (0, 1)),  # the positive condition is evaluated apart
        ([1, 0], (None, "xt_negative"), "10", (0, 1)),
    ],
)
def test_partners(node, numbers, names, weak, partners):
    options = {"cond_or_uncond": numbers}
    if names is not None:
        options["entropy_guidance_condition_names"] = names
    find = pack_module("nodes.attention.weak_condition").partner_chunks
    assert find(options, tuple(label == "1" for label in weak)) == partners


def test_partners_of_a_network_that_swaps_halves(node):
    """Rows 0, 1 are the negative ones and 2, 3 the positive ones, which this network runs first."""
    reach, rows = (pack_module(f"nodes.attention.{name}") for name in ("reach", "rows"))
    partners = rows.partner_rows((1, 1), 4)
    assert partners == (2, 3, 2, 3)
    assert reach.order_of_partners(torch.nn.Identity(), partners) == partners
    swapping = small_networks.build("SeedVR2").model.diffusion_model
    assert reach.order_of_partners(swapping, partners) == (0, 1, 0, 1)
    assert rows.partner_rows((0, 1), 5) == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("inputs", [{}, {"iterations": 2, "step_size": 0.9}])
def test_the_ends(node, demo, prompts, inputs):
    ordinary = predict(erg(node, demo[0], **inputs, temperature=1.0, flatness=-1.0), prompts)
    assert all(map(torch.equal, ordinary, predict(erg(node, demo[0], **inputs, flatness=0.0), prompts)))
    uniform = predict(erg(node, demo[0], **inputs, temperature=0.0, flatness=-1.0), prompts)
    assert all(map(torch.equal, uniform, predict(erg(node, demo[0], **inputs, flatness=1.0), prompts)))
    assert not torch.equal(uniform[1], ordinary[1])


@pytest.mark.parametrize("inputs", [{}, {"iterations": 2}, {"alpha": 0.9, "step_size": 1.2, "iterations": 3}])
def test_the_weak_branch_alone_changes_and_the_more_the_flatter(node, demo, prompts, inputs):
    ordinary = predict(erg(node, demo[0], **inputs, flatness=0.0), prompts)
    distances = []
    for share in (0.1, 0.4, 0.8):
        positive, negative = predict(erg(node, demo[0], **inputs, flatness=share), prompts)
        assert torch.equal(positive, predict(demo[0], prompts)[0]) and negative.isfinite().all()
        distances.append((negative - ordinary[1]).abs().mean().item())
    assert 0 < distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize("name", ["SD15", "SD3"])
def test_a_picture_does_not_know_its_neighbours(node, name):
    model = random_models.build(name)
    patched, latent = erg(node, model), random_models.latent(model, 16, batch=3)
    together = predict(patched, random_models.conditions(), latent)
    for i in range(3):
        for a, b in zip(together, predict(patched, random_models.conditions(), latent[i : i + 1])):
            assert_agree(a[i : i + 1], b)


def temperatures(flatness, monkeypatch, step) -> list[torch.Tensor]:
    """Those that were measured in the calls of a step, [groups, heads]."""
    found, solve = [], flatness.temperature_for

    def keeping(*args):
        found.append(solve(*args))
        return found[-1]

    with monkeypatch.context() as patch:
        patch.setattr(flatness, "temperature_for", keeping)
        step()
    return found


def test_the_positive_rows_are_measured(node, demo, prompts, flatness, monkeypatch):
    """The negative prompt has no say in the temperature; where its condition is evaluated apart, it has nothing else."""
    model = erg(node, demo[0])

    def measured(*conditions):
        return torch.stack(temperatures(flatness, monkeypatch, lambda: predict(model, conditions)))

    together = measured(prompts[0], prompts[1])
    assert together.shape == (12, 2, 4)  # calls, pictures, heads
    assert_agree(measured(prompts[0], prompts[0]), together)
    assert not torch.allclose(measured(None, prompts[1]), together, rtol=1e-3)


def test_64_queries_are_enough(node, demo, prompts, flatness, monkeypatch):
    """On the demo, at four times the size it was trained for: within a few percent of all 276 queries in nearly every head."""
    latent = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))

    def measured(queries):
        monkeypatch.setattr(flatness, "QUERIES", queries)
        model = erg(node, demo[0])
        return torch.stack(temperatures(flatness, monkeypatch, lambda: predict(model, prompts, latent)))

    difference = (measured(64) / measured(10**6)).log().abs()
    assert difference.mean() < 0.01 and difference.max() < 0.1


def regions(node, condition):
    """A condition of two entries, both for the whole picture."""
    return node("ConditioningCombine", conditioning_1=condition, conditioning_2=condition)[0]


def test_entries_of_conditions_go_with_each_other(node, demo, prompts):
    """The same entry twice is as it is once, whether the positive condition has one or two."""
    patched = erg(node, demo[0])
    once = predict(patched, prompts)
    for conditions in (map(regions, [node] * 2, prompts), (prompts[0], regions(node, prompts[1]))):
        for a, b in zip(predict(patched, tuple(conditions)), once):
            assert_agree(a, b)


def test_conditions_that_are_evaluated_one_by_one(node, demo, prompts, monkeypatch):
    """As ComfyUI does where memory is short: each is measured by itself, and the positive one keeps its bits."""
    monkeypatch.setattr(type(demo[0].model), "memory_required", lambda *args, **kwargs: 1e30)
    positive, negative = predict(erg(node, demo[0]), prompts)
    ordinary = predict(demo[0], prompts)
    assert torch.equal(positive, ordinary[0]) and not torch.equal(negative, ordinary[1])


def test_two_nodes_in_a_row(node, demo, prompts):
    """The second measures what is there without the first, of several iterations or one."""
    for iterations in (1, 2):
        first = erg(node, demo[0], layers="3", flatness=0.2, iterations=iterations)
        both = predict(erg(node, first, layers="5", flatness=0.3), prompts)
        assert torch.equal(both[0], predict(demo[0], prompts)[0]) and both[1].isfinite().all()
        assert not torch.equal(both[1], predict(first, prompts)[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(node, dtype):
    model = random_models.build("SD3", dtype)
    latent = random_models.latent(model, 16)
    ordinary, weak = (predict(m, random_models.conditions(), latent) for m in (model, erg(node, model)))
    assert torch.equal(ordinary[0], weak[0]) and not torch.equal(ordinary[1], weak[1])
    assert weak[1].isfinite().all()


def test_compiled_networks_are_measured_without_their_compiled_code(node):
    energy = pack_module("guidance_core.attention_energy").AttentionEnergy
    evaluation = pack_module("nodes.attention.tempered_evaluation").TemperedEvaluation
    runs_compiled = [evaluation(energy(flatness=f), None, "all", True).runs_compiled for f in (-1.0, 0.4, 1.0)]
    assert runs_compiled == [True, False, True]


def test_a_sampling(node, demo, prompts, sample):
    """And a graph of before there was a flatness."""
    drawn = sample(erg(node, demo[0], layers="3-6"), *prompts)
    assert drawn.isfinite().all() and not torch.equal(drawn, sample(demo[0], *prompts))
    old = node("EntropyGuidanceERG", model=demo[0], temperature=0.3)[0]
    new = node("EntropyGuidanceERG", model=demo[0], temperature=0.3, flatness=-1.0)[0]
    assert torch.equal(sample(old, *prompts), sample(new, *prompts))


@pytest.mark.parametrize("value", [-1.5, 1.5, float("nan"), float("inf")])
def test_bad_input(node, demo, value):
    message = f"flatness = {value}: it must be below 0"
    with pytest.raises(ValueError, match=message):
        erg(node, demo[0], flatness=value)
    with pytest.raises(ValueError, match=message):
        node("EntropyGuidanceCLIP", clip=demo[1], flatness=value)
