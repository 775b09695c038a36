"""How ERG changes ComfyUI's attention for the weak branch of one patched clone. ComfyUI's internals are touched here."""
