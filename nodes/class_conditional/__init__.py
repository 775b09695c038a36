"""Class-conditional diffusion models that ComfyUI does not load itself, as genuine models of it."""
