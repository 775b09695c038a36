"""A small CLIP object with random weights for every text encoder that ComfyUI's loaders can build.

The networks are ComfyUI's own classes; so are the tokenizers, where ComfyUI ships them.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from unittest import mock

import comfy.sd
import torch
from comfy import sd1_clip
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders import (
    ace15,
    anima,
    ernie,
    flux,
    gemma4,
    gpt_oss,
    hidream,
    hydit,
    ideogram4,
    jina_clip_2,
    joyimage,
    lt,
    lumina2,
    minimax,
    omnigen2,
    ovis,
    pixart_t5,
    qwen3vl,
    qwen35,
    qwen_image,
    sa3,
    wan,
    z_image,
)  # fmt: skip

TEXT = "a large red circle left of a small blue square on a white background"
TOKENS = [(id, 1.0) for id in (4, 5, 9, 7, 11, 6, 8, 3)]  # where the tokenizer comes with the checkpoint
OTHER_TOWERS = ("vision", "visual", "audio")  # as large as ever, but their memory is never touched

CLIP = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 3}
T5 = {"d_ff": 64, "d_kv": 16, "d_model": 32, "num_heads": 2, "num_layers": 3}
LLAMA = {**CLIP, "num_key_value_heads": 1}
SMALL = {"vocab_size": 64}  # for TOKENS

Tensors = list[torch.Tensor]


@dataclass(frozen=True)
class Family:
    """A kind of text encoder.

    build: makes the CLIP object. used_by: the modules of ComfyUI whose text encoders are of this class of network.
    layers: its attention layers; unread: how many of them, from the end, come after what ComfyUI reads of the network.
    read: what the CLIP makes of a prompt. changes: how many tensors of that attention has a part in.
    """

    build: Callable[[], comfy.sd.CLIP]
    used_by: str
    layers: int = 3
    unread: int = 0
    changes: int = 1
    read: Callable[[comfy.sd.CLIP], Tensors] | None = None

    def encode(self, clip: comfy.sd.CLIP) -> Tensors:
        return (self.read or encoding)(clip)


def encoding(clip: comfy.sd.CLIP, **options) -> Tensors:
    """What ComfyUI's text encode nodes make of `TEXT`, all floating-point tensors of it."""
    ((cond, rest),) = clip.encode_from_tokens_scheduled(clip.tokenize(TEXT, **options))
    values = [cond, *(rest[key] for key in sorted(rest))]
    return [value.clone() for value in values if torch.is_tensor(value) and value.is_floating_point()]


def hidden_states(clip: comfy.sd.CLIP, encoder: str) -> Tensors:
    """What the network of one encoder makes of `TOKENS`, for those that ComfyUI generates text with."""
    clip.load_model({})
    return [getattr(clip.cond_stage_model, encoder).transformer(torch.tensor([[id for id, _ in TOKENS]]))[0].clone()]


def _read_as_comfyui_can(encoder: str, kind: type) -> Callable[[comfy.sd.CLIP], Tensors] | None:
    """ComfyUI 0.30 generates text with these, and fails to encode: their tokens are not what its encoding takes."""
    return partial(hidden_states, encoder=encoder) if "process_tokens" in vars(kind) else None


class FixedTokens:
    """In the place of a tokenizer: the same tokens for each text, for each encoder of that name."""

    def __init__(self, *names: str):
        self.names = names

    def __call__(self, **kwargs):
        return self

    def tokenize_with_weights(self, text, return_word_ids=False, **kwargs):
        return {name: [list(TOKENS)] for name in self.names} if self.names else [list(TOKENS)]


def small_clip(model: Callable, tokenizer: Callable, checkpoint: list[dict] = [], **options) -> comfy.sd.CLIP:
    """A CLIP object of ComfyUI's class `model` with random weights, on the CPU. options: ComfyUI's model options."""
    cpu = torch.device("cpu")
    options = {"dtype": torch.float32, "load_device": cpu, "offload_device": cpu, **options}
    with torch.inference_mode(False):
        clip = comfy.sd.CLIP(ClipTarget(tokenizer, model), model_options=options, state_dict=checkpoint)
        _randomise(clip.cond_stage_model)
    return clip


def _randomise(model: torch.nn.Module, left: tuple[str, ...] = OTHER_TOWERS) -> None:
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_floating_point() and not any(part.startswith(left) for part in name.split(".")):
            scale = tensor.shape[-1] ** -0.5 if tensor.ndim > 1 else 0.2  # activations keep their size
            tensor.data = torch.randn(tensor.shape, generator=generator) * scale


def _named(model, tokenizer, name: str, **sizes) -> Callable[[], comfy.sd.CLIP]:
    """Builds an encoder whose sizes are ComfyUI's model option for encoders of that name."""
    return partial(small_clip, model, tokenizer, **{f"{name}_model_config": sizes})


def _fixed(model, name: str, **sizes) -> Callable[[], comfy.sd.CLIP]:
    return _named(model, FixedTokens(name), name, **SMALL, **sizes)


def _gemma4(variant: type, **sizes) -> Family:
    sizes = {**LLAMA, "num_hidden_layers": 4, **sizes}
    build = _fixed(gemma4.gemma4_te(model_class=variant), "gemma4", **sizes)
    # LTX reads its prompts with them from the release on that has this function.
    used_by = "gemma4 lt" if hasattr(gemma4, "gemma4_text_encoder_model") else "gemma4"
    return Family(build, used_by, layers=4, read=_read_as_comfyui_can("gemma4", gemma4.Gemma4Model))


def _gemma3_with_vision() -> Family:
    name = "gemma3_4b_vision"
    build, read = (
        _fixed(lumina2.te(model_type=name), name, **LLAMA),
        _read_as_comfyui_can(name, lumina2.Gemma3_4B_Vision_Model),
    )
    return Family(build, "lumina2", unread=0 if read else 1, read=read)  # encoding takes the last layer but one


def _ace15(language_model: str) -> Family:
    def read(clip):
        return [*encoding(clip, generate_audio_codes=False), *hidden_states(clip, language_model)]

    model = ace15.te(lm_model=language_model)
    # ComfyUI reads the lyrics before the first layer: they are the one tensor that stays.
    return Family(_named(model, ace15.ACE15Tokenizer, "", **LLAMA), "ace15", changes=2, read=read)


def _hunyuan_dit() -> comfy.sd.CLIP:
    sizes = {"hydit_clip_model_config": {**CLIP, **SMALL}, "mt5xl_model_config": {**T5, **SMALL}}
    return small_clip(hydit.HyditModel, FixedTokens("hydit_clip", "mt5xl"), **sizes)


def _t5gemma() -> comfy.sd.CLIP:
    class Config(sa3.T5GemmaEncoderConfig):
        def __init__(self):
            super().__init__()
            self.vocab_size, self.hidden_size, self.intermediate_size, self.num_hidden_layers = 64, 32, 64, 3
            self.num_attention_heads = self.num_key_value_heads = 2
            self.head_dim = self.query_pre_attn_scalar = 16
            self.attn_logit_softcapping = 1.0  # so that it caps logits of random weights

    with mock.patch.object(sa3, "T5GemmaEncoderConfig", Config):
        return small_clip(sa3.SAT5GemmaModel, FixedTokens("t5gemma"))


def _gpt_oss() -> comfy.sd.CLIP:
    config = {
        **LLAMA, **SMALL, "num_hidden_layers": 4, "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2,
        "sliding_window": 4,
    }  # fmt: skip
    options = {"gpt_oss_config": config, "selected_layers": (1, 3), "txt_offset": 0}
    # Its layers have no weights but those of a checkpoint.
    network = gpt_oss.lens_te()(device="meta", dtype=torch.float32, model_options=options).gpt_oss.transformer
    layers = ((name, layer) for name, layer in network.named_modules() if hasattr(layer, "_orig_shape"))
    checkpoint = {f"{name}.weight": torch.zeros(layer._orig_shape) for name, layer in layers}
    return small_clip(gpt_oss.lens_te(), FixedTokens("gpt_oss"), [checkpoint], **options)


def _qwen35() -> comfy.sd.CLIP:
    types = qwen35._qwen35_layer_types(9)  # softmax attention in the fourth and the eighth
    sizes = {**LLAMA, "num_hidden_layers": 9, "layer_types": types, "lm_head": False}
    name = "qwen35_08b"
    return _named(qwen35.te(model_type=name), qwen35.tokenizer(model_type=name), name, **sizes)()


class SongTokens(FixedTokens):
    """The same for MiniMax Music 3, with what its text encode node adds: a song of one frame."""

    def tokenize_with_weights(self, text, return_word_ids=False, **kwargs):
        song = {"seed": 0, "max_audio_frames": 1, "cfg_scale": 1.5, "top_k": 50}
        return {**super().tokenize_with_weights(text), **song}


def _minimax_music() -> comfy.sd.CLIP:
    minimax_music = importlib.import_module("comfy.text_encoders.minimax_music")
    sizes = {
        **LLAMA, "head_dim": 16, "audio_vocab_size": 64, "decoder_num_heads": 2, "decoder_intermediate_size": 64,
        "decoder_num_layers": 2,
    }  # fmt: skip
    with mock.patch.object(minimax_music, "MODEL_CONFIG", {**minimax_music.MODEL_CONFIG, **sizes}):
        clip = small_clip(minimax_music.MiniMaxMusic3TEModel, SongTokens("minimax_music3"))
    with torch.inference_mode(False):
        _randomise(clip.cond_stage_model, left=())  # what writes the song is no tower beside the text's
    return clip


FOUR = {**LLAMA, "num_hidden_layers": 4}
VL_4B, VL_8B = "qwen3vl_4b", "qwen3vl_8b"
HIDREAM_LLAMA = hidream.hidream_clip(clip_l=False, clip_g=False, t5=False)

FAMILIES = {
    "CLIP": Family(
        _named(sd1_clip.SD1ClipModel, sd1_clip.SD1Tokenizer, "clip_l", **CLIP),
        "sd1_clip sdxl_clip sd2_clip sd3_clip flux hunyuan_video hidream kandinsky5 sam3_clip", changes=2,
    ),
    "T5": Family(
        _named(pixart_t5.pixart_te(), pixart_t5.PixArtTokenizer, "t5xxl", **T5),
        "pixart_t5 ace aura_t5 cogvideo cosmos flux genmo hidream hunyuan_image hydit sa_t5 sd3_clip",
    ),
    "UMT5": Family(_fixed(wan.te(), "umt5xxl", **T5), "wan"),
    "BERT and mT5": Family(_hunyuan_dit, "hydit", changes=2),
    "Jina CLIP 2": Family(
        _fixed(jina_clip_2.JinaClip2TextModelWrapper, "jina_clip_2", **CLIP), "jina_clip_2 newbie", changes=2,
    ),
    "Llama 3": Family(_named(HIDREAM_LLAMA, hidream.HiDreamTokenizer, "llama", **LLAMA), "hidream hunyuan_video"),
    "Mistral 3 Small": Family(
        _fixed(flux.flux2_te(), "mistral3_24b", **{**LLAMA, "num_hidden_layers": 31}), "flux", layers=31, unread=1,
    ),
    "Ministral 3": Family(_fixed(ernie.te(), "ministral3_3b", **LLAMA), "ernie", unread=1),
    "Qwen 2.5 3B": Family(_named(omnigen2.te(), omnigen2.Omnigen2Tokenizer, "qwen25_3b", **LLAMA), "omnigen2"),
    "Qwen 2.5 VL 7B": Family(
        _named(qwen_image.te(), qwen_image.QwenImageTokenizer, "qwen25_7b", **LLAMA),
        "qwen_image hunyuan_image kandinsky5 longcat_image",
    ),
    "Qwen 3 0.6B": Family(_named(anima.te(), anima.AnimaTokenizer, "qwen3_06b", **LLAMA), "anima"),
    "Qwen 3 4B": Family(_named(z_image.te(), z_image.ZImageTokenizer, "qwen3_4b", **LLAMA), "z_image flux", unread=1),
    "Qwen 3 8B": Family(
        _named(ideogram4.te(), ideogram4.Ideogram4Tokenizer, VL_8B, **FOUR), "ideogram4 flux", layers=4,
    ),
    "Qwen 3 0.6B and 2B": _ace15("qwen3_2b"),
    "Qwen 3 0.6B and 4B": _ace15("qwen3_4b"),
    "Ovis 2.5": Family(_named(ovis.te(), ovis.OvisTokenizer, "qwen3_2b", **LLAMA), "ovis"),
    "Qwen 3.5": Family(_qwen35, "qwen35", layers=2),
    "Qwen 3 VL": Family(
        _named(qwen3vl.te(model_type=VL_4B), qwen3vl.tokenizer(model_type=VL_4B), VL_4B, **LLAMA),
        "qwen3vl boogu ideogram4 krea2 mage_flow",
    ),
    "Qwen 3 VL of JoyImage": Family(_named(joyimage.te(), joyimage.JoyImageTokenizer, VL_8B, **LLAMA), "joyimage"),
    "Qwen 3 VL of MiniMax": Family(_named(minimax.te(), minimax.MiniMaxH3Tokenizer, "qwen3vl_32b", **LLAMA), "minimax"),
    "Gemma 2": Family(_fixed(lumina2.te(), "gemma2_2b", **LLAMA), "lumina2 pixeldit", unread=1),
    "Gemma 3 4B": Family(
        _fixed(lumina2.te(model_type="gemma3_4b"), "gemma3_4b", **LLAMA), "lumina2 newbie", unread=1,
    ),
    "Gemma 3 4B with vision": _gemma3_with_vision(),
    "Gemma 3 12B": Family(_named(lt.gemma3_te(), FixedTokens(), "", **LLAMA, **SMALL), "lt"),
    "Gemma 4 E2B": _gemma4(gemma4.Gemma4_E2B, num_kv_shared_layers=2, hidden_size_per_layer_input=8),
    "Gemma 4 E4B": _gemma4(gemma4.Gemma4_E4B, num_kv_shared_layers=2, hidden_size_per_layer_input=8),
    "Gemma 4 12B": _gemma4(gemma4.Gemma4_12B),
    "Gemma 4 31B": _gemma4(gemma4.Gemma4_31B),
    "T5Gemma": Family(_t5gemma, "sa3"),
    "gpt-oss": Family(_gpt_oss, "gpt_oss", layers=4),
}  # fmt: skip

if find_spec("comfy.text_encoders.minimax_music"):  # seen first in 0.33
    FAMILIES["MiniMax Music 3"] = Family(_minimax_music, "minimax_music")

# HiDream-O1 has no text encoder: its diffusion network reads the tokens.
WITHOUT_ENCODER = ("hidream_o1",)
