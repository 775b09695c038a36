"""The bundled demo model: a small text-to-image model of coloured shapes, its data and its training."""
