"""How often the demo model draws a held-out caption exactly: no guidance, CFG, I-ERG, C-ERG and ERG, same seeds.
`python -m benchmarks.prompt_consistency`, half an hour on two cores.

I-ERG: τ 0.3 in one middle layer, the nodes' defaults. C-ERG: τc 0.01 in all layers of the text encoder. ERG: both.
exact: exactly the caption's colour-shape pairs. relation: those, and where the caption names one, their relation.
clean: share of shapes that overlap their ideal by 90 % or more. bright: share of clipped pixel values.
"""

from random import Random

import torch
from tqdm import tqdm

import nodes
from demo.scene_checker import CLEAN_OVERLAP, Shown, read_picture
from demo.scenes import sample_scene

from . import results
from .in_process import run_node

CAPTIONS = 100
STEPS = 20
BATCH = 50


def methods() -> dict[str, dict]:
    """Settings of each row: scale, and where used the inputs of the ERG node and of the ERG text encoder."""
    mild = {"temperature": 0.3, "layers": "40%-50%"}
    rows = {"no guidance": {"scale": 1.0}}
    rows |= {f"CFG {scale}": {"scale": scale} for scale in (1.5, 2.0, 2.5, 3.0, 4.0)}
    rows |= {f"I-ERG {scale}, empty negative": {"scale": scale, "erg": mild} for scale in (1.5, 2.0, 2.5, 3.0)}
    clip = {"temperature": 0.01, "layers": "all"}
    rows |= {f"C-ERG {scale}": {"scale": scale, "clip": clip} for scale in (2.0, 3.0)}
    rows |= {f"ERG {scale}": {"scale": scale, "erg": mild, "clip": clip} for scale in (1.5, 2.0, 3.0)}
    return rows


def measure(quick: bool) -> dict:
    count = 4 if quick else CAPTIONS
    rng, rows = Random(2024), {}
    scenes = [sample_scene(rng, held_out=True) for _ in range(count)]
    print(f"\nPrompt consistency on {count} held-out captions, Euler {STEPS} steps, same seeds")
    print(f"{'method':38}{'exact':>8}{'relation':>10}{'clean':>8}{'bright':>8}")
    for name, settings in methods().items():
        row = rows[name] = score(draw(scenes, **settings), scenes)
        print(
            f"{name:38}{row['exact']:>8.3f}{row['relation']:>10.3f}{row['clean']:>8.3f}{row['bright']:>8.3f}",
            flush=True,
        )
    return {"captions": count, "steps": STEPS, "rows": rows}


@torch.inference_mode()
def draw(scenes, scale: float, erg: dict | None = None, clip: dict | None = None, seed: int = 0) -> torch.Tensor:
    """[N, 3, 128, 128] pictures in 0..1 of the scenes' captions."""
    model, encoder, vae = run_node("EntropyGuidanceLoadDemo")
    if erg is not None:
        model = run_node("EntropyGuidanceERG", model=model, **erg)[0]
    weak = encoder if clip is None else run_node("EntropyGuidanceCLIP", clip=encoder, **clip)[0]
    pictures = []
    for start in tqdm(range(0, len(scenes), BATCH), leave=False):
        captions = [scene.caption for scene in scenes[start : start + BATCH]]
        positive, negative = encode(encoder, captions), encode(weak, [""] if clip is None else captions)
        latent = {"samples": torch.zeros(len(captions), 4, 16, 16)}
        sampled = nodes.common_ksampler(
            model, seed + start, STEPS, scale, "euler", "simple", positive, negative, latent
        )[0]["samples"]  # fmt: skip
        pictures.append(vae.decode(sampled).movedim(-1, 1))
    return torch.cat(pictures)


def encode(clip, captions: list[str]) -> list:
    """One CONDITIONING with a row for each caption."""
    rows = [run_node("CLIPTextEncode", clip=clip, text=caption)[0][0] for caption in captions]
    return [[torch.cat([row[0] for row in rows]), rows[0][1]]]


def score(pictures: torch.Tensor, scenes) -> dict[str, float]:
    shown = [*map(read_picture, pictures)]
    overlaps = [blob.overlap for of_picture in shown for blob in of_picture.blobs]
    return {
        "exact": sum(map(Shown.has_pairs_of, shown, scenes)) / len(scenes),
        "relation": sum(map(Shown.has_relation_of, shown, scenes)) / len(scenes),
        "clean": sum(overlap >= CLEAN_OVERLAP for overlap in overlaps) / max(len(overlaps), 1),
        "bright": ((pictures <= 0) | (pictures >= 1)).float().mean().item(),
    }


if __name__ == "__main__":
    results.main("prompt_consistency", __doc__, measure)
