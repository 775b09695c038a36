"""What the pack relies on in ComfyUI: derived from the code, checked when ComfyUI loads the pack, by `make doctor` and the tests."""
