"""What the registry would publish: all that ComfyUI loads, nothing else, and nothing that the registry refuses."""

import ast
import os
import re
import subprocess
import sys
import zipfile
from pathlib import PurePath

import pytest
from comfy_cli.registry.config_parser import extract_node_configuration
from our_modules import REPOSITORY, imports, loaded_by_comfyui, module_of, packages, tree
from PIL import Image

from tools.archive import build
from tools.environment import COMFYUI
from tools.licences import FROM_COMFYUI, OPTIONAL

REFUSED = {"multiprocessing", "pip", "pty", "subprocess"}
RUN_TEXT = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The names of all files in the archive."""
    path = tmp_path_factory.mktemp("archive") / "archive.zip"
    build(path)
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def shipped(files):
    """The modules in the archive."""
    return {module_of(REPOSITORY / name) for name in files if name.endswith(".py")}


@pytest.fixture(scope="module")
def metadata():
    return extract_node_configuration(str(REPOSITORY / "pyproject.toml"))


def packages_of(modules: set[str]) -> set[str]:
    """The packages around modules, which Python loads first."""
    return {".".join(module.split(".")[:depth]) for module in modules for depth in range(1, module.count(".") + 1)}


def test_the_code_is_what_comfyui_loads(shipped):
    loaded = loaded_by_comfyui()
    assert shipped == loaded | packages_of(loaded)


def test_the_rest_is_for_artists(files):
    folders = {PurePath(name).parts[0] for name in files if "/" in name}
    code = {"contract", "demo", "guidance_core", "nodes"}
    assert folders - {"locales", "subgraphs"} == code | {"docs", "example_workflows", "web"}
    assert {name for name in files if "/" not in name} == {
        "CHANGELOG.md", "LICENSE", "README.md", "__init__.py", "pyproject.toml",
    }  # fmt: skip
    bundled = ("demo/weights", "demo/tokenizer", "example_workflows", "web", "locales", "subgraphs")
    ours = {path for folder in bundled for path in (REPOSITORY / folder).rglob("*") if path.is_file()}
    assert {path.relative_to(REPOSITORY).as_posix() for path in ours} <= files


def test_pages_that_help_pages_name_are_there(files):
    named = {
        page for path in REPOSITORY.glob("web/docs/**/*.md")
        for page in re.findall(r"\bdocs/[\w-]+\.md", path.read_text(encoding="utf-8"))
    }  # fmt: skip
    assert "docs/evidence.md" in named and named <= files


def test_nothing_starts_a_process_or_runs_text(shipped):
    assert not {(module, name) for module in shipped for name in imports(module) if name.split(".")[0] in REFUSED}
    calls = (node.func for module in shipped for node in ast.walk(tree(module)) if isinstance(node, ast.Call))
    called = {ast.unparse(function) for function in calls}
    assert len(called) > 1000 and not called & RUN_TEXT


def test_no_package_is_needed_that_comfyui_does_not_bring(shipped, metadata):
    assert metadata.project.dependencies == []
    imported = {{"PIL": "pillow"}.get(name, name) for name in packages(shipped)}
    assert imported == {*FROM_COMFYUI, *OPTIONAL}
    required = re.findall(r"^[\w-]+", (COMFYUI / "requirements.txt").read_text().lower(), re.MULTILINE)
    assert {*FROM_COMFYUI} <= {*required}


def test_the_registry_accepts_it():
    command = [sys.executable, "-m", "comfy_cli", "--skip-prompt", "node", "validate"]
    environment = {**os.environ, "DO_NOT_TRACK": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "validation checks passed" in said, said


def test_metadata_is_complete(metadata):
    project, comfy = metadata.project, metadata.tool_comfy
    assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", project.name) and "comfy" not in project.name
    assert re.fullmatch(r"\d+\.\d+\.\d+", project.version)
    assert project.license.file == "LICENSE" and project.description and project.supported_os == ["OS Independent"]
    assert project.supported_comfyui_version and project.urls.repository and project.urls.issues
    assert comfy.publisher_id and comfy.display_name


def test_icon_and_banner_are_as_the_registry_asks(metadata):
    repository = metadata.project.urls.repository
    files = f"{repository.replace('github.com', 'raw.githubusercontent.com')}/main/"
    icon, banner = (
        Image.open(REPOSITORY / url.removeprefix(files)).size
        for url in (metadata.tool_comfy.icon, metadata.tool_comfy.banner_url)
    )
    assert icon[0] == icon[1] <= 400
    assert banner[0] * 9 == banner[1] * 21
