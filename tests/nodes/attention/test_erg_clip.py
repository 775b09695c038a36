"""C-ERG in a real ComfyUI, on the demo's CLIP and on T5-, BERT- and llama-class encoders with random weights."""

import comfy.clip_model
import comfy.ops
import comfy.sd
import comfy.text_encoders.bert
import comfy.text_encoders.llama
import comfy.text_encoders.t5
import pytest
import torch
from comfy import sd1_clip
from comfy.sdxl_clip import SDXLClipModel, SDXLTokenizer
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders.flux import FluxClipModel, FluxTokenizer
from comfy.text_encoders.sd3_clip import SD3ClipModel, SD3Tokenizer

from benchmarks import random_models
from benchmarks.in_process import pack_module
from benchmarks.tolerance import assert_agree

TEXT = "a large red circle left of a small blue square on a white background"


def tempered(node, clip, **inputs):
    return node("EntropyGuidanceCLIP", clip=clip, **{"temperature": 0.01, "layers": "all", **inputs})[0]


def same(a, b) -> bool:
    """Whether two CONDITIONINGs hold the same bits, pooled output included."""
    pooled = [c[0][1]["pooled_output"] for c in (a, b)]
    return torch.equal(a[0][0], b[0][0]) and (pooled[0] is None or torch.equal(*pooled))


def test_changes_the_clone_and_leaves_the_original(node, demo, encode):
    before = encode(demo[1], TEXT)
    clip = tempered(node, demo[1])
    changed = encode(clip, TEXT)
    assert not torch.equal(before[0][0], changed[0][0])
    assert same(before, encode(demo[1], TEXT))
    assert same(changed, encode(clip, TEXT))
    assert same(before, encode(demo[1].clone(), TEXT))


def test_temperature_1_keeps_the_bits(node, demo, encode):
    assert same(encode(demo[1], TEXT), encode(tempered(node, demo[1], temperature=1.0), TEXT))


def test_is_the_encoder_with_queries_scaled_in_the_chosen_layers(node, demo, encode):
    """The oracle scales the weights that make the queries, on a copy of the encoder."""
    oracle = node("EntropyGuidanceLoadDemo")[1]
    for layer in oracle.cond_stage_model.clip_l.transformer.text_model.encoder.layers[1:3]:
        layer.self_attn.q_proj.weight.mul_(0.4)
        layer.self_attn.q_proj.bias.mul_(0.4)
    actual = encode(tempered(node, demo[1], temperature=0.4, layers="1-2"), TEXT)
    assert_agree(actual[0][0], encode(oracle, TEXT)[0][0])


@pytest.mark.parametrize("text", ["a (red:1.3) circle", f"{TEXT} and {TEXT}", ""])
def test_weighted_long_and_empty_prompts(node, demo, encode, text):
    before = encode(demo[1], text)
    changed = encode(tempered(node, demo[1]), text)
    assert changed[0][0].shape == before[0][0].shape
    assert changed[0][0].isfinite().all()
    assert not torch.equal(before[0][0], changed[0][0])
    assert same(before, encode(demo[1], text))


def test_clip_skip(node, demo, encode):
    skipped = node("CLIPSetLastLayer", clip=demo[1], stop_at_clip_layer=-2)[0]
    both_orders = (
        tempered(node, skipped),
        node("CLIPSetLastLayer", clip=tempered(node, demo[1]), stop_at_clip_layer=-2)[0],
    )
    encoded = [encode(clip, TEXT) for clip in both_orders]
    assert same(*encoded)
    assert not torch.equal(encoded[0][0][0], encode(skipped, TEXT)[0][0])
    assert not torch.equal(encoded[0][0][0], encode(tempered(node, demo[1]), TEXT)[0][0])


def test_two_nodes_in_a_row_multiply(node, demo, encode):
    twice = tempered(node, tempered(node, demo[1], temperature=0.5), temperature=0.4)
    once = tempered(node, demo[1], temperature=0.2)
    assert_agree(encode(twice, TEXT)[0][0], encode(once, TEXT)[0][0])


def test_lora_before_and_after(node, demo, encode):
    name = "clip_l.transformer.text_model.encoder.layers.1.self_attn.v_proj.weight"
    change = {name: ("diff", (torch.full((128, 128), 0.02),))}
    before, after = tempered(node, with_patches(demo[1], change)), with_patches(tempered(node, demo[1]), change)
    encoded = encode(before, TEXT)
    assert same(encoded, encode(after, TEXT))
    assert not same(encoded, encode(tempered(node, demo[1]), TEXT))
    assert not same(encoded, encode(with_patches(demo[1], change), TEXT))


def on_another_copy(clip, executed: bool):
    """What ComfyUI makes of a CLIP for another device or without dynamic VRAM; executed: the copy is what encodes."""
    clone = clip.clone()
    clone.patcher = clip.patcher.clone(force_deepcopy=True)
    if executed:
        clone.cond_stage_model = clone.patcher.model
    return clone


def test_a_copy_of_the_encoder_is_tempered_too(node, demo, encode, caplog):
    name = "clip_l.transformer.text_model.encoder.layers.1.self_attn.v_proj.weight"
    change = {name: ("diff", (torch.full((128, 128), 0.05),))}
    for twice in (False, True):  # also where two nodes changed the same layers
        clip = tempered(node, demo[1], temperature=0.5) if twice else demo[1]
        expected = encode(with_patches(tempered(node, clip), change), TEXT)
        copied = on_another_copy(tempered(node, clip), executed=True)
        assert same(expected, encode(with_patches(copied, change), TEXT))
        assert "second copy of its text encoder" in caplog.text
        assert not same(expected, encode(copied, TEXT))


def test_a_copy_that_does_not_encode_is_an_error(node, demo):
    with pytest.raises(ValueError, match="two copies of its text encoder"):
        tempered(node, on_another_copy(demo[1], executed=False))


def with_patches(clip, change):
    clip = clip.clone()
    assert clip.add_patches(change)
    return clip


@pytest.mark.parametrize("scheduled", [False, True])
def test_lora_hooks(node, demo, encode, scheduled):
    """A LoRA as a hook on the tempered clone and on the one before it; scheduled: it comes in halfway."""
    import comfy.hooks

    name = "clip_l.transformer.text_model.encoder.layers.1.self_attn.v_proj.weight"
    hook = comfy.hooks.WeightHook(strength_model=1.0, strength_clip=1.0)
    hook.weights = hook.weights_clip = {name: ("diff", (torch.full((128, 128), 0.02),))}
    hook.need_weight_init = False
    hooks = comfy.hooks.HookGroup()
    hooks.add(hook)
    if scheduled:
        keyframes = comfy.hooks.HookKeyframeGroup()
        for strength, start in ((0.0, 0.0), (1.0, 0.5)):
            keyframes.add(comfy.hooks.HookKeyframe(strength=strength, start_percent=start))
        hooks.set_keyframes_on_hooks(keyframes)

    def hooked(clip):
        return node("SetClipHooks", clip=clip, apply_to_conds=True, schedule_clip=scheduled, hooks=hooks)[0]

    plain, found = encode(hooked(demo[1]), TEXT), encode(hooked(tempered(node, demo[1])), TEXT)
    without = encode(tempered(node, demo[1]), TEXT)[0][0]
    assert len(plain) == len(found) == 1 + scheduled
    assert not any(torch.equal(a, b) for (a, _), (b, _) in zip(plain, found))
    assert not torch.equal(found[-1][0], without)
    assert not scheduled or torch.equal(found[0][0], without)
    other_order = encode(tempered(node, hooked(demo[1])), TEXT)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(found, other_order, strict=True))


LLAMA_SIZES = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2)


class Llama(comfy.text_encoders.llama.Llama2):
    """ComfyUI's llama class, shrunk."""

    def __init__(self, config_dict, dtype, device, operations):
        super().__init__({**config_dict, **LLAMA_SIZES, "num_key_value_heads": 1}, dtype, device, operations)


T5 = {
    "d_ff": 64, "d_kv": 16, "d_model": 32, "num_heads": 2, "num_layers": 3, "vocab_size": 64, "is_gated_act": True,
    "dense_act_fn": "gelu_pytorch_tanh", "model_type": "t5", "decoder_start_token_id": 0,
}  # fmt: skip
BERT = {
    "hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 64, "num_attention_heads": 2,
    "num_hidden_layers": 3, "vocab_size": 64, "type_vocab_size": 1, "pad_token_id": 0, "layer_norm_eps": 1e-5,
}  # fmt: skip
CLIP = {
    "hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 8, "num_attention_heads": 2,
    "num_hidden_layers": 3, "hidden_act": "gelu", "eos_token_id": 2,
}  # fmt: skip
ENCODERS = {
    "clip": (comfy.clip_model.CLIPTextModel, CLIP),
    "t5": (comfy.text_encoders.t5.T5, T5),
    "bert": (comfy.text_encoders.bert.BertModel, BERT),
    "llama": (Llama, {}),
}


def random_clip(*names) -> comfy.sd.CLIP:
    """A CLIP object with encoders of the named classes; its conditioning is theirs, one after the other."""

    class Encoders(torch.nn.Module):
        def __init__(self, device="cpu", dtype=None, model_options={}):
            super().__init__()
            for name in names:
                model_class, config = ENCODERS[name]
                encoder = sd1_clip.SDClipModel(
                    device=device, max_length=8, textmodel_json_config=config, dtype=torch.float32, model_class=model_class,
                    special_tokens={"start": 1, "end": 2, "pad": 0}, layer="last", model_options=model_options,
                    enable_attention_masks=name != "clip", return_attention_masks=False, layer_norm_hidden_state=False,
                )  # fmt: skip
                setattr(self, name, encoder)
            self.dtypes = {torch.float32}

        def set_clip_options(self, options):
            [getattr(self, name).set_clip_options(options) for name in names]

        def reset_clip_options(self):
            [getattr(self, name).reset_clip_options() for name in names]

        def encode_token_weights(self, tokens):
            return torch.cat([getattr(self, name).encode_token_weights(tokens[name])[0] for name in names], 1), None

    class Tokens:
        def __init__(self, **kwargs):
            pass

        def tokenize_with_weights(self, text, return_word_ids=False, **kwargs):
            return {name: [[(t, 1.0) for t in (1, 5, 9, 7, 11, 2, 0, 0)]] for name in names}

    clip = comfy.sd.CLIP(ClipTarget(Tokens, Encoders))
    randomise(clip)
    return clip


def randomise(clip):
    generator = torch.Generator().manual_seed(0)
    for parameter in clip.cond_stage_model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2


@pytest.mark.parametrize("name", ENCODERS)
def test_encoder_classes(node, encode, name):
    clip = random_clip(name)
    before = encode(clip, TEXT)
    changed = encode(tempered(node, clip), TEXT)
    assert changed[0][0].isfinite().all()
    assert not torch.equal(before[0][0], changed[0][0])
    assert same(before, encode(clip, TEXT))
    one_layer = encode(tempered(node, clip, layers="1"), TEXT)
    assert not torch.equal(one_layer[0][0], changed[0][0])


@pytest.mark.parametrize("names", [("clip", "bert"), ("clip", "t5", "llama")])
def test_each_of_several_encoders_is_changed(node, encode, names):
    clip = random_clip(*names)
    before, changed = encode(clip, TEXT), encode(tempered(node, clip), TEXT)
    for a, b in zip(before[0][0].split(8, 1), changed[0][0].split(8, 1)):
        assert not torch.equal(a, b)
    assert same(before, encode(clip, TEXT))


def test_linear_attention_between_softmax_layers_is_no_layer(node):
    """Qwen3.5 has softmax attention in every fourth block only."""
    from comfy.text_encoders import qwen35

    network = torch.nn.Module()
    config = qwen35._make_config("qwen35_08b")
    network.model = qwen35.Qwen35Transformer(config, "meta", torch.float32, comfy.ops.disable_weight_init)
    glue = pack_module("nodes.attention.text_encoder")
    paths = glue._attention_modules(network)
    assert paths == [f"model.layers.{i}.self_attn" for i in range(3, config.num_hidden_layers, 4)]


SMALL_CLIP = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 4}
SMALL_ENCODERS = {  # ComfyUI's option for encoders of another size
    "clip_l_model_config": SMALL_CLIP,
    "clip_g_model_config": SMALL_CLIP,
    # SD3 joins its encoders at T5-XXL's own width.
    "t5xxl_model_config": {"d_ff": 64, "d_kv": 16, "d_model": 4096, "num_heads": 2, "num_layers": 3},
}
SDXL_SIZES = {"width": 128, "height": 128, "crop_w": 0, "crop_h": 0, "target_width": 128, "target_height": 128}


@pytest.mark.parametrize(
    ("tokenizer", "encoders", "text_encode", "inputs"),
    [
        (SDXLTokenizer, SDXLClipModel, "CLIPTextEncodeSDXL", {"text_g": TEXT, "text_l": TEXT, **SDXL_SIZES}),
        (FluxTokenizer, FluxClipModel, "CLIPTextEncodeFlux", {"clip_l": TEXT, "t5xxl": TEXT, "guidance": 3.5}),
        (
            SD3Tokenizer, SD3ClipModel, "CLIPTextEncodeSD3",
            {"clip_l": TEXT, "clip_g": TEXT, "t5xxl": TEXT, "empty_padding": "none"},
        ),
    ],
)  # fmt: skip
def test_text_encode_nodes_of_sdxl_flux_and_sd3(node, tokenizer, encoders, text_encode, inputs):
    clip = comfy.sd.CLIP(ClipTarget(tokenizer, encoders), model_options=SMALL_ENCODERS)
    randomise(clip)

    def encoded(clip):
        return node(text_encode, clip=clip, **inputs)[0]

    before, changed = encoded(clip), encoded(tempered(node, clip))
    assert changed[0][0].isfinite().all()
    assert not torch.equal(before[0][0], changed[0][0])
    assert not torch.equal(before[0][1]["pooled_output"], changed[0][1]["pooled_output"])
    assert same(before, encoded(clip))
    assert same(before, encoded(tempered(node, clip, temperature=1.0)))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"layers": ""}, "layers = '' is empty"),
        ({"layers": "x"}, "cannot read 'x'"),
        ({"layers": "17"}, "'17' selects nothing: clip_l has 4 layers"),
        ({"layers": "middle"}, "'middle' selects nothing"),
        ({"temperature": -1.0}, "temperature = -1.0"),
        ({"temperature": float("nan")}, "temperature = nan"),
    ],
)
def test_bad_input(node, demo, inputs, message):
    with pytest.raises(ValueError, match=message):
        tempered(node, demo[1], **inputs)


def test_a_clip_without_a_text_encoder_is_an_error(node):
    with pytest.raises(ValueError, match="HiDreamO1TE holds no text encoder"):
        tempered(node, random_models.unreachable_clip())
