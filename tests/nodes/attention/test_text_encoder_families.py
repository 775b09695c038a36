"""C-ERG on every text encoder that ComfyUI can build: small ones that encode, and all of them at their real sizes."""

import warnings
from functools import cache
from unittest import mock

import comfy.sd
import comfy.supported_models
import pytest
import torch
from comfy.sd import CLIPType, TEModel
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders.llama import precompute_freqs_cis

from benchmarks import in_process
from benchmarks.small_encoders import FAMILIES, WITHOUT_ENCODER, FixedTokens, hidden_states
from benchmarks.tolerance import assert_agree

INLINE = {  # one family, and where its layers are, for each class in the pack's table
    "Gemma 4 31B": "gemma4.transformer.model.layers",
    "gpt-oss": "gpt_oss.transformer.layers",
    "T5Gemma": "t5gemma.transformer.model.encoder.layers",
}
GENERATE_ONLY = [name for name, family in FAMILIES.items() if getattr(family.read, "func", None) is hidden_states]


@cache
def small(name: str) -> comfy.sd.CLIP:
    return FAMILIES[name].build()


@pytest.fixture(scope="module")
def glue(node):
    return in_process.pack_module("nodes.attention.text_encoder")


def tempered(node, clip, temperature=0.01, layers="all", flatness=-1.0):
    return node("EntropyGuidanceCLIP", clip=clip, temperature=temperature, layers=layers, flatness=flatness)[0]


def changed(before, after) -> int:
    """How many of the tensors differ in any bit."""
    return sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", FAMILIES)
def test_temperature(node, name):
    family, clip = FAMILIES[name], small(name)
    before = family.encode(clip)
    after = family.encode(tempered(node, clip))
    assert changed(before, after) == family.changes
    assert all(tensor.isfinite().all() for tensor in after)
    assert changed(before, family.encode(clip)) == 0
    assert changed(before, family.encode(tempered(node, clip, temperature=1.0))) == 0


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "T5Gemma"])
def test_flatness(node, name):
    """Of the ends, one is no change and one is temperature 0; between them, the more the farther from no change."""
    family, clip = FAMILIES[name], small(name)
    before, *after = (family.encode(tempered(node, clip, flatness=share)) for share in (0.0, 0.1, 0.6, 1.0))
    assert changed(before, family.encode(clip)) == 0
    assert changed(after[-1], family.encode(tempered(node, clip, 0.0))) == 0
    for encoded in after:
        assert changed(before, encoded) == family.changes
        assert all(tensor.isfinite().all() for tensor in encoded)
    little, more, _ = (sum((a - b).abs().sum() for a, b in zip(before, encoded)) for encoded in after)
    assert little < more


def test_t5gemma_has_no_flatness(node):
    with pytest.raises(ValueError, match="flatness = 0.3 cannot be measured in T5Gemma.* use temperature"):
        tempered(node, small("T5Gemma"), flatness=0.3)
    assert (
        changed(
            *(
                FAMILIES["T5Gemma"].encode(tempered(node, small("T5Gemma"), **inputs))
                for inputs in ({"temperature": 0.0}, {"flatness": 1.0})
            )
        )
        == 0
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_each_layer(node, name):
    """Layers after the last hidden state that ComfyUI reads change nothing."""
    family, clip = FAMILIES[name], small(name)
    before = family.encode(clip)
    for layer in range(family.layers):
        is_read = layer < family.layers - family.unread
        after = family.encode(tempered(node, clip, layers=str(layer)))
        assert changed(before, after) == (family.changes if is_read else 0), layer
    with pytest.raises(ValueError, match=f"'99' selects nothing: .* has {family.layers} layers"):
        tempered(node, clip, layers="99")


def layers_of(clip, name: str) -> torch.nn.ModuleList:
    return clip.cond_stage_model.get_submodule(INLINE[name])


def assert_all_agree(actual: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for pair in zip(actual, expected, strict=True):
        assert_agree(*pair)


@pytest.mark.parametrize(
    ("name", "makes_queries"),
    [
        ("Gemma 4 31B", "self_attn.q_norm.weight"),  # normalised queries: their projection's size has no effect
        ("gpt-oss", "self_attn.q_proj.weight self_attn.q_proj.bias"),
    ],
)
def test_is_the_encoder_with_queries_scaled_in_the_chosen_layers(node, name, makes_queries):
    """The oracle scales the weights that make the queries, on an encoder of its own."""
    family, oracle = FAMILIES[name], FAMILIES[name].build()
    for layer in layers_of(oracle, name)[1:3]:
        for weight in makes_queries.split():
            layer.get_parameter(weight).data.mul_(0.4)
    expected = family.encode(oracle)
    assert changed(family.encode(small(name)), expected) == family.changes
    assert_all_agree(family.encode(tempered(node, small(name), 0.4, "1-2")), expected)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions of x [..., head width] for cos and sin [tokens, half of the head width]."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def heads(x: torch.Tensor, count: int) -> torch.Tensor:
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


@pytest.mark.parametrize("temperature", [0.01, 0.4, 3.0])
def test_t5gemma_is_a_softmax_of_tempered_capped_logits(node, temperature):
    """Written out: the temperature multiplies the logits after their cap, and leaves the mask as it is."""
    clip = tempered(node, small("T5Gemma"), temperature, "1")
    clip.load_model({})
    layer = layers_of(clip, "T5Gemma")[1].self_attn
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 32, generator=generator)
    mask = torch.zeros(2, 1, 6, 6)
    mask[0, ..., 4:], mask[1] = float("-inf"), torch.randn(6, 6, generator=generator)
    angles = torch.arange(6)[:, None] * 10000.0 ** -(torch.arange(8) / 8)
    cos, sin = angles.cos(), angles.sin()

    q, k = (rotate(heads(x @ w.weight.T, 2), cos, sin) for w in (layer.q_proj, layer.k_proj))
    logits = layer.softcap * torch.tanh(q @ k.transpose(-1, -2) * 16**-0.5 / layer.softcap)
    assert (logits.abs() > 0.7 * layer.softcap).any()  # the cap is felt
    attention = torch.softmax(temperature * logits + mask, -1)
    expected = (attention @ heads(x @ layer.v_proj.weight.T, 2)).transpose(1, 2).flatten(2) @ layer.o_proj.weight.T

    positions = precompute_freqs_cis(16, torch.arange(6)[None], 10000.0)
    assert_agree(layer(x, attention_mask=mask, freqs_cis=positions)[0], expected)


@pytest.mark.parametrize("temperature", [0.01, 0.4, 3.0])
def test_gpt_oss_keeps_the_logit_of_its_sink(node, temperature):
    """Written out: a softmax over the tempered logits and the sink's own, of which the sink's share is dropped."""
    clip = tempered(node, small("gpt-oss"), temperature, "0")
    clip.load_model({})
    layer = layers_of(clip, "gpt-oss")[0].self_attn
    x = torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(0))
    mask = torch.full((6, 6), float("-inf")).triu(1)

    q, k, v = (heads(w(x), n) for w, n in ((layer.q_proj, 2), (layer.k_proj, 1), (layer.v_proj, 1)))
    logits = temperature * (q @ k.transpose(-1, -2)) * 16**-0.5 + mask
    sinks = layer.sinks.view(1, 2, 1, 1).expand(1, 2, 6, 1)
    attention = torch.softmax(torch.cat([logits, sinks], -1), -1)[..., :-1]
    expected = layer.o_proj((attention @ v).transpose(1, 2).flatten(2))

    nowhere = torch.ones(1, 1, 6, 16), torch.zeros(1, 1, 6, 8), torch.zeros(1, 1, 6, 8)  # no rotation
    assert_agree(layer(x, mask[None, None], nowhere), expected)


def test_the_flatness_of_gpt_oss_counts_its_sink_as_a_key(node):
    """Written out: the measured entropy is that of a softmax over the logits and the sink's own."""
    clip = tempered(node, small("gpt-oss"), layers="0", flatness=0.3)
    clip.load_model({})
    layer = layers_of(clip, "gpt-oss")[0].self_attn
    x = torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(0))
    mask = torch.full((6, 6), float("-inf")).triu(1)

    q, k, v = (heads(w(x), n) for w, n in ((layer.q_proj, 2), (layer.k_proj, 1), (layer.v_proj, 1)))
    sinks = layer.sinks.view(1, 2, 1, 1).expand(1, 2, 6, 1)
    logits = torch.cat([q @ k.transpose(-1, -2) * 16**-0.5, torch.zeros_like(sinks)], -1)
    bias = torch.cat([mask.expand(1, 2, 6, 6), sinks], -1)
    core = in_process.pack_module("guidance_core.attention_flatness")
    temperature = core.temperature_for(logits, 0.3, bias, any_bias=True)[..., None, None]
    attention = torch.softmax(temperature * logits + bias, -1)[..., :-1]
    expected = layer.o_proj((attention @ v).transpose(1, 2).flatten(2))

    nowhere = torch.ones(1, 1, 6, 16), torch.zeros(1, 1, 6, 8), torch.zeros(1, 1, 6, 8)  # no rotation
    assert_agree(layer(x, mask[None, None], nowhere), expected)


@pytest.mark.parametrize("name", INLINE)
def test_two_nodes_in_a_row_multiply(node, name):
    family, clip = FAMILIES[name], small(name)
    twice = tempered(node, tempered(node, clip, 0.5), 0.4)
    assert_all_agree(family.encode(twice), family.encode(tempered(node, clip, 0.2)))


@pytest.mark.parametrize("name", INLINE)
def test_a_copy_of_the_encoder_is_tempered_too(node, name):
    """What a node for another device makes of a CLIP; the copy has other weights here, to tell it from the first."""
    family, other = FAMILIES[name], FAMILIES[name].build()
    for layer in layers_of(other, name):
        layer.self_attn.o_proj.weight.data.mul_(2)
    expected = family.encode(tempered(node, other))
    copied = tempered(node, small(name)).clone()
    copied.patcher = copied.patcher.clone(model_override=other.patcher.get_clone_model_override())
    copied.cond_stage_model = copied.patcher.model
    assert changed(expected, family.encode(copied)) == 0
    assert changed(expected, family.encode(tempered(node, small(name)))) == family.changes


@pytest.mark.parametrize("name", INLINE)
def test_a_forward_that_another_node_replaced_is_an_error(node, name):
    clip = small(name).clone()
    clip.patcher.add_object_patch(f"{INLINE[name]}.1.self_attn.forward", lambda *args, **kwargs: None)
    with pytest.raises(ValueError, match="another node replaced it"):
        tempered(node, clip)


@pytest.mark.parametrize("name", GENERATE_ONLY)
def test_comfyui_cannot_encode_with_these(name):
    """None are left where a newer ComfyUI encodes with them."""
    clip = small(name)
    with pytest.raises(ValueError, match="not enough values to unpack"):
        clip.encode_from_tokens(clip.tokenize("a red circle"))


class UnknownAttention(torch.nn.Module):
    """A text encoder as ComfyUI's, with attention of its own making."""

    def __init__(self, device="cpu", dtype=None, model_options={}):
        super().__init__()
        self.own = torch.nn.Module()
        self.own.transformer = torch.nn.MultiheadAttention(32, 2, device=device, dtype=dtype)
        self.dtypes = {dtype}


def test_an_encoder_with_unknown_attention_is_an_error(node):
    clip = comfy.sd.CLIP(ClipTarget(FixedTokens("own"), UnknownAttention))
    with pytest.raises(ValueError, match=r"The text encoder 'own' \(Module\) cannot be reached"):
        tempered(node, clip)


def loadable() -> list[type]:
    """Every class of CLIP that ComfyUI's loaders make of files: empty ones, said to hold each kind of encoder."""
    found = {}

    def keep(target, **kwargs):
        closure = (cell.cell_contents for cell in target.clip.__init__.__closure__ or ())
        options = tuple(getattr(value, "model_class", value) for value in closure if value is not target.clip)
        found[(target.clip.__module__, target.clip.__qualname__, options)] = target.clip

    with mock.patch.object(comfy.sd, "CLIP", keep), mock.patch.object(comfy.sd, "detect_te_model") as detected:
        for detected.return_value in (None, *TEModel):
            for clip_type in CLIPType:
                for files in (1, 2, 3, 4):
                    comfy.sd.load_text_encoder_state_dicts([{} for _ in range(files)], clip_type=clip_type)
    for model in comfy.supported_models.models:  # checkpoints; ACE-Step 1.5's needs a look into one
        if model is not comfy.supported_models.ACEStep15 and (target := object.__new__(model).clip_target({})):
            keep(target)
    return list(found.values())


@cache
def full_size() -> list[tuple[str, torch.nn.Module]]:
    """(module of ComfyUI, text encoder) for each of `loadable`, without memory."""
    encoders = []
    for build in loadable():
        model = build(device="meta", dtype=torch.float32, model_options={})
        encoders += [(build.__module__.rpartition(".")[2], part) for part in parts_of(model) or [model]]
    return encoders


def parts_of(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The text encoders of a CLIP object, as ComfyUI holds them."""
    itself = class_of(model) in in_process.pack_module("nodes.attention.text_encoder").WITHOUT_TRANSFORMER
    return [model] if itself else [part for part in (model, *model.children()) if hasattr(part, "transformer")]


def class_of(network: torch.nn.Module) -> str:
    """The name of a network's class; ComfyUI makes some in functions, which have that of what they derive from."""
    named = next(kind for kind in type(network).__mro__ if "<locals>" not in kind.__qualname__)
    return f"{named.__module__}.{named.__qualname__}"


def network_of(encoder: torch.nn.Module) -> torch.nn.Module:
    return getattr(encoder, "transformer", encoder)


@cache
def tabled() -> set[tuple[str, str]]:
    """(class of network, module of ComfyUI) for all that `FAMILIES` tell of."""
    return {
        (class_of(network_of(encoder)), module)
        for name, family in FAMILIES.items()
        for encoder in parts_of(small(name).cond_stage_model)
        for module in family.used_by.split()
    }


WITHOUT_NETWORK = (*WITHOUT_ENCODER, "sd3_clip", "hidream")  # the last two have pieces for files that hold no encoder


def test_every_encoder_of_comfyui_is_in_the_table(node):
    actual = {
        (class_of(network_of(encoder)), module)
        for module, encoder in full_size()
        if parts_of(encoder) or module not in WITHOUT_NETWORK
    }
    assert tabled() - actual == set()
    if new := sorted(actual - tabled()):
        warnings.warn(f"not yet tested, for want of a small encoder: {new}", stacklevel=1)


def test_every_encoder_of_comfyui_is_reached_at_its_real_size(glue):
    """Every one that the table knows; the test above tells of others."""
    for module, encoder in full_size():
        if (class_of(network_of(encoder)), module) not in tabled():
            continue
        layers = network_of(encoder).model.layers if network_of(encoder) is encoder else range(encoder.num_layers)
        blocks = len(layers) // (4 if module == "qwen35" else 1)  # three of its four layers have linear attention
        assert len(glue._attention_modules(encoder)) == blocks, (module, type(encoder))
