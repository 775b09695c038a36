"""A model folder of a test's own, and the node that loads from it."""

import pytest

from benchmarks.classifier_compatibility import listed


@pytest.fixture
def models(node, tmp_path):
    """An empty folder that ComfyUI looks for classifiers in."""
    path = tmp_path / "models"
    path.mkdir()
    with listed(path):
        yield path


@pytest.fixture
def load(node):
    """load(name) gives the GUIDANCE_CLASSIFIER of a file or folder."""

    def load_classifier(name, **inputs):
        return node("EntropyGuidanceLoadClassifier", classifier_name=name, **inputs)[0]

    return load_classifier
