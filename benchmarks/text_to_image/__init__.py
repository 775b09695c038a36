"""Guidance of the text-to-image demo model, method beside method: `python -m benchmarks.text_to_image`."""
