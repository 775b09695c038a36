"""Prompts of all kinds, in an order that chance chooses: what a server gets in a long day."""

from dataclasses import dataclass
from random import Random

from graphs import (
    calibrated,
    class_conditional,
    classifier_guided,
    guided_away,
    node,
    papers_ddpm,
    recorded,
    text_to_image,
)

# What stays loaded from the first prompt to the last, whichever of them a prompt uses: what adds up on a model is to be seen.
LOADERS = {
    "demo": node("EntropyGuidanceLoadDemo"),
    "classes": node("EntropyGuidanceLoadADM", model_name="entropy-guidance-demo-classes"),
    **{
        name: node("EntropyGuidanceLoadClassifier", classifier_name=name, prompts="")
        for name in ("entropy-guidance-demo", "entropy-guidance-demo-classes")
    },
}


@dataclass(frozen=True)
class Prompt:
    """graph: in the format of ComfyUI's HTTP API. wanted: how it ends. interrupt_after: seconds, for one that is stopped."""

    graph: dict
    wanted: str = "success"
    interrupt_after: float | None = None


def of_cycle(number: int) -> list[Prompt]:
    """Twenty prompts of ours with seeds of their own."""
    random = Random(number)

    def seed() -> int:
        return random.randrange(2**32)

    prompts = [
        *(Prompt(text_to_image(seed=seed())) for _ in range(2)),
        *(Prompt(text_to_image(seed=seed(), scale=0.8, cfg=1.0)) for _ in range(2)),
        Prompt(text_to_image(seed=seed(), flatness=0.5)),
        Prompt(text_to_image(seed=seed(), alpha=0.9, iterations=2)),
        Prompt(text_to_image(seed=seed(), batch=random.randint(2, 4))),
        Prompt(guided_away(seed=seed())),
        *(Prompt(recorded(seed=seed())) for _ in range(4)),
        *(Prompt(_of_classifier(seed())) for _ in range(2)),
        Prompt(class_conditional(seed=seed())),
        Prompt(papers_ddpm()),
        Prompt(calibrated(training={"seed": seed()})),
        Prompt(text_to_image(erg=False, seed=seed())),
        Prompt(text_to_image(seed=seed(), layers="99"), wanted="error"),
        # Stopped somewhere, which ComfyUI calls an error, too.
        Prompt(text_to_image(seed=seed(), steps=200), wanted="error", interrupt_after=random.uniform(0.2, 2)),
    ]
    random.shuffle(prompts)
    return prompts


def of_comfyui(number: int) -> list[Prompt]:
    """As many of ComfyUI's own nodes, to compare."""
    random = Random(number)
    return [Prompt(text_to_image(erg=False, seed=random.randrange(2**32))) for _ in of_cycle(number)]


def with_loaders(graph: dict) -> dict:
    """The graph, beside nodes that load what stays loaded: ComfyUI's cache keeps what a prompt asks for until one does not."""
    held = {f"loaded {name}": loader for name, loader in LOADERS.items()}
    return graph | held | {f"kept {name}": node("Keep", loaded=[name, 0]) for name in held}


def _of_classifier(seed: int) -> dict:
    graph = classifier_guided()
    graph["sampler"]["inputs"]["seed"] = seed
    return graph
