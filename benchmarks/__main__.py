"""`make bench`: the cost of a step, then what guidance does to the demo model."""

import torch

from . import in_process


def main() -> None:
    in_process.load_nodes()
    from . import prompt_consistency, step_cost  # they import ComfyUI, which in_process has made ready

    with torch.inference_mode():
        step_cost.measure()
        prompt_consistency.measure()


if __name__ == "__main__":
    main()
