"""The nodes: one file each, and beside them the glue to ComfyUI that they share."""
