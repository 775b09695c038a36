"""The class-conditional twin of the demo model: a small pixel-space model of 18 classes, its data and its training."""
