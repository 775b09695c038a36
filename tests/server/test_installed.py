"""The pack as it is installed from the registry's archive: it draws, and what it cannot work with is one clear error, after
which everything goes on working."""

import io
import zipfile

import pytest
from client import Client
from graphs import node, text_to_image
from PIL import Image

from tools.archive import build
from tools.comfyui_server import running_server
from tools.environment import REPOSITORY


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A clean ComfyUI with the archive, whose files a test may damage, and with models out of reach."""
    base = tmp_path_factory.mktemp("base")
    pack = base / "custom_nodes" / "entropy-guidance"
    build(base / "archive.zip")
    with zipfile.ZipFile(base / "archive.zip") as archive:
        archive.extractall(pack)
    (base / "custom_nodes" / "unreachable_models").symlink_to(REPOSITORY / "tests" / "server" / "unreachable_models")
    # With a ComfyUI of the user's, the pack itself is there too, from an extra path.
    only = ("--disable-all-custom-nodes", "--whitelist-custom-nodes", "entropy-guidance", "unreachable_models")
    with running_server(base / "server.log", "--base-directory", str(base), *only) as port:
        client = Client(port)
        client.weights = pack / "demo" / "weights"
        yield client


def test_the_archive_is_loaded_and_draws(own):
    info = own.get("/object_info/EntropyGuidanceERG")["EntropyGuidanceERG"]
    assert info["python_module"] == "custom_nodes.entropy-guidance"
    assert own.get_text("/extensions/entropy-guidance/docs/EntropyGuidanceERG.md").startswith("# ")
    templates = {path.stem for path in (REPOSITORY / "example_workflows").glob("*.json")}
    assert templates == set(own.get("/workflow_templates")["entropy-guidance"])
    (picture,) = own.pictures(own.run(text_to_image()))
    assert Image.open(io.BytesIO(picture)).size == (128, 128)


def test_a_model_whose_attention_cannot_be_reached(own):
    graph = text_to_image()
    graph["unreachable"] = node("UnreachableModel")
    graph["erg"]["inputs"].update(model=["unreachable", 0], layers="all")
    graph["sampler"]["inputs"].update(positive=["unreachable", 1], negative=["unreachable", 2])
    graph["latent"]["inputs"].update(width=128, height=128)
    result, texts = own.run_and_listen(graph)
    error = own.error(result)
    assert "The attention of UNetModel cannot be reached" in error["exception_message"]
    assert texts["erg"] == [f"Stopped: {error['exception_message'].strip()}"]
    assert error["node_id"] == "sampler"
    own.pictures(own.run(text_to_image()))


def test_a_clip_without_a_text_encoder(own):
    graph = text_to_image()
    graph["hidream"] = node("UnreachableClip")
    graph["clip"]["inputs"]["clip"] = ["hidream", 0]
    error = own.error(own.run(graph))
    assert "HiDreamO1TE holds no text encoder that this node knows" in error["exception_message"]
    assert error["node_id"] == "clip"
    own.pictures(own.run(text_to_image()))


@pytest.mark.parametrize("name", ["diffusion", "text", "vae"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_missing_or_damaged_demo_weights(own, name, damage):
    path = own.weights / f"{name}.safetensors"
    whole = path.read_bytes()
    own.forget()
    try:
        path.unlink() if damage == "missing" else path.write_bytes(whole[:-1000])
        error = own.error(own.run(text_to_image(seed=21)))
    finally:
        path.write_bytes(whole)
    assert f"{name}.safetensors is missing or damaged" in error["exception_message"]
    assert error["node_id"] == "demo"
    own.pictures(own.run(text_to_image(seed=21)))
