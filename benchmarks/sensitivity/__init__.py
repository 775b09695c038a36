"""Each input by itself, and τc at several scales."""
