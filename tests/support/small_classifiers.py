"""Small classifiers with random weights in published formats."""

from pathlib import Path


def save_clip(path: Path, positions: int = 16) -> None:
    """A CLIP with the demo's tokenizer. positions: of its text encoder, and what its tokenizer takes a prompt to be at most."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    from demo.architecture import TOKENIZER

    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER, model_max_length=positions)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {
        **tower,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": positions,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = {**tower, "image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(path)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(path)
    tokenizer.save_pretrained(path)


def save_align(path: Path) -> None:
    """An ALIGN with the demo's tokenizer, which is not its own."""
    from transformers import AlignConfig, AlignModel, CLIPTokenizer, EfficientNetImageProcessor

    from demo.architecture import TOKENIZER

    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER, model_max_length=16)
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"vocab_size": len(tokenizer), "max_position_embeddings": 16, "pad_token_id": 0}
    vision = {"image_size": 32, "width_coefficient": 0.1, "depth_coefficient": 0.1, "hidden_dim": 16}
    vision["initializer_range"] = 0.5  # no picture comes through so many layers of new weights' usual size
    AlignModel(AlignConfig(text_config=text, vision_config=vision, projection_dim=32)).save_pretrained(path)
    EfficientNetImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False).save_pretrained(path)
    tokenizer.save_pretrained(path)


def save_siglip(path: Path) -> None:
    """A SigLIP with the demo's tokenizer, which like its own tells of no mask: it was trained on padded prompts."""
    import torch
    from transformers import CLIPTokenizer, SiglipConfig, SiglipImageProcessor, SiglipModel

    from demo.architecture import TOKENIZER

    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER, model_max_length=16, model_input_names=["input_ids"])
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**tower, "vocab_size": len(tokenizer), "max_position_embeddings": 16, "projection_size": 16}
    vision = {**tower, "image_size": 32, "patch_size": 8}
    network = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    with torch.no_grad():  # as of published ones
        network.logit_scale.fill_(4.7)
        network.logit_bias.fill_(-12.9)
    network.save_pretrained(path)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)
    tokenizer.save_pretrained(path)
