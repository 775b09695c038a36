"""How conditions and their predictions are changed in a step of ComfyUI's sampling: condition annealing, a guider."""
