"""`make bench`: evaluations a step in each mode, the cost of a step of ERG and of classifier guidance, then what ERG does to the demo model."""

import torch

from . import evaluations, guidance_cost, in_process, prompt_consistency, step_cost


def main() -> None:
    in_process.load_nodes()
    with torch.inference_mode():
        evaluations.measure()
        step_cost.measure()
        guidance_cost.measure()
        prompt_consistency.measure()


if __name__ == "__main__":
    main()
