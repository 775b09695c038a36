"""I-ERG in a real ComfyUI: whom it changes, by how much, and whom it leaves alone."""

import pytest
import torch
from comfy.patcher_extension import WrappersMP
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.one_step import predict
from benchmarks.tolerance import assert_agree


def erg(node, model, **inputs):
    return node("EntropyGuidanceERG", model=model, **inputs)[0]


def tempered(model, temperature, layers):
    """The oracle: every row's queries scaled in the named layers (block type, index), by an override of its own."""
    model = model.clone()

    def override(attention, q, *args, transformer_options, **kwargs):
        if (transformer_options["block_type"], transformer_options["block_index"]) in layers:
            q = q * temperature
        return attention(q, *args, transformer_options=transformer_options, **kwargs)

    model.model_options["transformer_options"]["optimized_attention_override"] = override
    return model


def test_the_positive_branch_keeps_its_bits_and_the_negative_branch_changes(node, demo, prompts):
    ordinary = predict(demo[0], prompts)
    rectified = predict(erg(node, demo[0], temperature=0.01, layers="all"), prompts)
    assert torch.equal(ordinary[0], rectified[0])
    assert (ordinary[1] - rectified[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("layers", "blocks"),
    [("0", {("double", 0)}), ("1,2", {("double", 1), ("single", 0)}), ("40%-60%", {("single", 3), ("single", 4)})],
)
def test_the_negative_branch_is_the_network_with_tempered_attention(node, demo, prompts, layers, blocks):
    rectified = predict(erg(node, demo[0], temperature=0.3, layers=layers), prompts)
    expected = predict(tempered(demo[0], 0.3, blocks), prompts)
    assert_agree(rectified[1], expected[1])


def test_neutral_parameters_sample_the_same_bits(node, demo, prompts, sample):
    patched = erg(node, demo[0], temperature=1.0, layers="all")
    assert torch.equal(sample(demo[0], *prompts), sample(patched, *prompts))


def test_the_original_and_other_clones_stay_as_they_were(node, demo, prompts, sample):
    other = demo[0].clone()
    before = sample(demo[0], *prompts)
    patched = erg(node, demo[0], temperature=0.01, layers="all")
    changed = sample(patched, *prompts)
    assert not torch.equal(before, changed)
    assert torch.equal(before, sample(demo[0], *prompts))
    assert torch.equal(before, sample(other, *prompts))
    assert torch.equal(changed, sample(patched, *prompts))


def test_cfg_1_has_no_negative_branch_and_changes_nothing(node, demo, prompts, sample):
    patched = erg(node, demo[0], temperature=0.01, layers="all")
    assert torch.equal(sample(demo[0], *prompts, cfg=1.0), sample(patched, *prompts, cfg=1.0))


def test_unconditional_guidance_from_two_empty_prompts(node, demo, encode, sample):
    empty = encode(demo[1], "")
    plain = sample(demo[0], empty, empty, cfg=1.0)
    assert_agree(plain, sample(demo[0], empty, empty, cfg=2.0))
    guided = sample(erg(node, demo[0], temperature=0.1, layers="40%-60%"), empty, empty, cfg=2.0)
    assert (guided - plain).abs().max() > 1e-2
    assert guided.isfinite().all()


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_every_picture_of_a_batch_is_guided_alike(node, demo, prompts, batch):
    patched = erg(node, demo[0], temperature=0.1, layers="3-6")
    latent = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3)).expand(batch, -1, -1, -1)
    single = predict(patched, prompts, latent[:1])[1]
    assert_agree(predict(patched, prompts, latent)[1], single.expand(batch, -1, -1, -1))


def test_separate_forwards_for_prompts_of_unequal_length(node, demo, encode):
    long = encode(demo[1], "a red circle left of a blue square on a white background " * 3)
    short = encode(demo[1], "")
    patched = erg(node, demo[0], temperature=0.01, layers="all")
    ordinary, rectified = predict(demo[0], (long, short)), predict(patched, (long, short))
    assert torch.equal(ordinary[0], rectified[0])
    assert (ordinary[1] - rectified[1]).abs().max() > 1e-3


def test_window(node, demo, prompts):
    """Outside of the window the negative branch keeps its bits; the demo's sigma is 1 - percent."""
    ordinary = predict(demo[0], prompts, sigma=0.6)[1]
    late = erg(node, demo[0], temperature=0.01, layers="all", start_percent=0.5)
    early = erg(node, demo[0], temperature=0.01, layers="all", end_percent=0.3)
    around = erg(node, demo[0], temperature=0.01, layers="all", start_percent=0.3, end_percent=0.5)
    assert torch.equal(ordinary, predict(late, prompts, sigma=0.6)[1])
    assert torch.equal(ordinary, predict(early, prompts, sigma=0.6)[1])
    assert not torch.equal(ordinary, predict(around, prompts, sigma=0.6)[1])


def test_joint_attention_counts_as_self(node, demo, prompts):
    inputs = {"temperature": 0.01, "layers": "all"}
    both = predict(erg(node, demo[0], **inputs), prompts)[1]
    assert torch.equal(both, predict(erg(node, demo[0], attention="self", **inputs), prompts)[1])
    with pytest.raises(RuntimeError, match="attention = 'cross': the selected layers of Flux have no cross-attention"):
        predict(erg(node, demo[0], attention="cross", **inputs), prompts)


def test_a_node_that_takes_the_layers_away_is_an_error(node, demo, prompts):
    """SkipLayerGuidance-like patches that replace a chosen block leave ERG nothing to change."""
    model = demo[0].clone()
    model.set_model_patch_replace(lambda args, extra: args, "dit", "single_block", 3)
    with pytest.raises(RuntimeError, match="ERG changed no attention of Flux: another node replaces"):
        predict(erg(node, model, layers="5"), prompts)


@pytest.mark.parametrize(
    ("alpha", "step_size", "iterations"), [(0.8, 1.0, 1), (1.0, 1.5, 1), (1.0, 1.0, 3), (0.9, 0.7, 2)]
)
def test_general_energy_is_algorithm_2_in_the_chosen_layer(node, demo, prompts, alpha, step_size, iterations):
    def descend(attention, q, k, v, heads, *args, transformer_options, **kwargs):
        if (transformer_options["block_type"], transformer_options["block_index"]) != ("single", 2):
            return attention(q, k, v, heads, *args, transformer_options=transformer_options, **kwargs)
        state = q
        for _ in range(iterations):  # the paper's Algorithm 2 on [B, H, N, D], written out
            retrieved = (0.4 * state @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v
            state = state - step_size * (state - alpha * retrieved)
        return state.transpose(1, 2).flatten(2)

    oracle = demo[0].clone()
    oracle.model_options["transformer_options"]["optimized_attention_override"] = descend
    inputs = {"alpha": alpha, "step_size": step_size, "iterations": iterations}
    patched = erg(node, demo[0], temperature=0.4, layers="4", **inputs)
    ordinary, rectified = predict(demo[0], prompts), predict(patched, prompts)
    assert_agree(rectified[1], predict(oracle, prompts)[1])
    assert torch.equal(ordinary[0], rectified[0])


def test_an_override_that_is_already_there_stays_in_force(node, demo, prompts):
    seen = []

    def override(attention, q, *args, **kwargs):
        seen.append(q.shape)
        return attention(q, *args, **kwargs)

    model = demo[0].clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = override
    expected = predict(erg(node, demo[0], temperature=0.3), prompts)
    seen.clear()
    actual = predict(erg(node, model, temperature=0.3), prompts)
    assert len(seen) == 12
    assert torch.equal(expected[1], actual[1])


def test_two_nodes_in_a_row_both_act(node, demo, prompts):
    once = erg(node, demo[0], temperature=0.5, layers="3")
    twice = erg(node, once, temperature=0.3, layers="5")
    expected = predict(tempered(tempered_first(demo[0]), 0.3, {("single", 3)}), prompts)[1]
    assert_agree(predict(twice, prompts)[1], expected)


@pytest.mark.parametrize("iterations", [(1, 2), (2, 1), (2, 3)])
def test_two_nodes_of_several_iterations(node, demo, prompts, iterations):
    """Each picture of a batch is guided alike, and as on its own."""
    first, second = iterations
    twice = erg(node, demo[0], temperature=0.5, layers="3", iterations=first)
    twice = erg(node, twice, temperature=0.3, layers="3-5", iterations=second, step_size=0.8)
    latent = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    single = predict(twice, prompts, latent)
    assert_agree(predict(twice, prompts, latent.expand(2, -1, -1, -1))[1], single[1].expand(2, -1, -1, -1))
    assert torch.equal(single[0], predict(demo[0], prompts, latent)[0])


def tempered_first(model):
    """Layer 3 tempered by scaling the block's weights of q, so that two oracles can be combined."""
    model = model.clone()
    scale = model.model.diffusion_model.single_blocks[1].norm.query_norm.weight * 0.5
    model.add_object_patch("diffusion_model.single_blocks.1.norm.query_norm.weight", torch.nn.Parameter(scale, False))
    return model


def test_a_selection_of_nothing_names_the_number_of_layers(node, demo, prompts, sample):
    patched = erg(node, demo[0], layers="99")
    with pytest.raises(ValueError, match="layers = '99' selects nothing: this model has 12 layers"):
        sample(patched, *prompts)
    assert sample(demo[0], *prompts).isfinite().all()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"layers": ""}, "layers = '' is empty"),
        ({"layers": "middling"}, "cannot read 'middling'"),
        ({"temperature": -0.1}, "temperature = -0.1"),
        ({"temperature": float("nan")}, "temperature = nan"),
        ({"alpha": -1.0}, "alpha = -1.0"),
        ({"step_size": float("inf")}, "step_size = inf"),
        ({"iterations": 0}, "iterations = 0"),
        ({"attention": "both"}, "attention = 'both': it must be one of all, self, cross"),
        ({"scale": 1e38}, "scale = 1e.38: it must be a finite number of 1000000 or less"),
        ({"start_percent": 0.6, "end_percent": 0.4}, "must end after it starts"),
        ({"start_percent": 0.5, "end_percent": 0.5}, "must end after it starts"),
        ({"end_percent": 1.5}, "between 0 and 1"),
    ],
)
def test_bad_input_is_an_error_in_the_nodes_own_words(node, demo, inputs, message):
    with pytest.raises(ValueError, match=message):
        erg(node, demo[0], **inputs)


def test_an_exception_in_the_middle_of_a_step_leaves_nothing_behind(node, demo, prompts, sample):
    before = sample(demo[0], *prompts)
    patched = erg(node, demo[0], temperature=0.01, layers="all")
    broken = patched.clone()

    def fail(executor, *args, **kwargs):
        executor(*args, **kwargs)
        raise KeyboardInterrupt

    broken.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "test", fail)
    expected = sample(patched, *prompts)
    with pytest.raises(KeyboardInterrupt):
        sample(broken, *prompts)
    assert torch.equal(before, sample(demo[0], *prompts))
    assert torch.equal(expected, sample(patched, *prompts))


class CountOperators(TorchDispatchMode):
    """How often each torch operator runs."""

    def __init__(self):
        super().__init__()
        self.counts = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[str(function)] = self.counts.get(str(function), 0) + 1
        return function(*args, **(kwargs or {}))


def test_costs_one_multiplication_in_each_chosen_layer_and_nothing_else(node, demo, prompts):
    def count(model):
        predict(model, prompts)  # the layers are learnt and the row factors made once
        with CountOperators() as operators:
            predict(model, prompts)
        return operators.counts

    ordinary, rectified = count(demo[0]), count(erg(node, demo[0], temperature=0.3, layers="3-6", share_trunk=False))
    more = {name: n - ordinary.get(name, 0) for name, n in rectified.items() if n != ordinary.get(name, 0)}
    assert more == {"aten.mul.Tensor": 4}
