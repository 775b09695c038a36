"""Writes `tokenizer/`: CLIP's byte-pair encoding, trained on captions until every word of `scenes.py` is one token.

`python -m demo.make_tokenizer` reproduces the committed files.
"""

import json
from random import Random

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from .scenes import sample_scene

END_OF_WORD = "</w>"


def main() -> None:
    from .architecture import TOKENIZER

    rng = Random(0)
    captions = [sample_scene(rng).caption for _ in range(5000)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained = Tokenizer(models.BPE(end_of_word_suffix=END_OF_WORD))
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    trained.train_from_iterator(
        captions, trainers.BpeTrainer(initial_alphabet=alphabet, end_of_word_suffix=END_OF_WORD)
    )
    merges = [tuple(merge) for merge in json.loads(trained.to_str())["model"]["merges"]]
    pieces = [*sorted(alphabet), *(letter + END_OF_WORD for letter in sorted(alphabet)), *("".join(m) for m in merges)]
    vocabulary = dict.fromkeys([*pieces, "<|startoftext|>", "<|endoftext|>"])
    TOKENIZER.mkdir(exist_ok=True)
    (TOKENIZER / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(vocabulary)}, indent=0) + "\n")
    (TOKENIZER / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(m) for m in merges)]) + "\n")
    tokenizer = CLIPTokenizer.from_pretrained(str(TOKENIZER))
    longest = max(len(tokenizer(caption)["input_ids"]) for caption in captions)
    print(f"{len(tokenizer)} tokens, longest caption {longest} tokens with start and end")


if __name__ == "__main__":
    from .training import import_comfyui

    import_comfyui()
    main()
