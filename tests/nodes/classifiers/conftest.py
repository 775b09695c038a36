"""A model folder of a test's own, and the node that loads from it."""

import folder_paths
import pytest


@pytest.fixture
def models(node, tmp_path):
    """An empty folder that ComfyUI looks for classifiers in."""
    roots = folder_paths.folder_names_and_paths["classifiers"][0]
    path = tmp_path / "models"
    path.mkdir()
    roots.append(str(path))
    yield path
    roots.remove(str(path))


@pytest.fixture
def load(node):
    """load(name) gives the GUIDANCE_CLASSIFIER of a file or folder."""

    def load_classifier(name, **inputs):
        return node("EntropyGuidanceLoadClassifier", classifier_name=name, **inputs)[0]

    return load_classifier
