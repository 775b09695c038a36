"""The contract with ComfyUI: its page, every row of it on a real ComfyUI, and what becomes of one that has moved something."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contract.check import DERIVED, SOFT, Row, findings
from contract.loading import nodes_that_work
from tools.contract import PAGE, Reader, as_json, derive, menu, page, undeclared_keys, unused_by_hand
from tools.environment import COMFYUI, REPOSITORY

# What a ComfyUI of the future has renamed, wherever it uses it: a function that one node needs, and a key.
RENAMED = {
    "comfy/samplers.py": ("cfg_function", "combine_predictions"),
    "comfy/ldm/modules/diffusionmodules/openaimodel.py": ("transformer_index", "index_of_transformer"),
}
LOAD = """
import asyncio
from benchmarks.in_process import REPOSITORY, nodes
assert asyncio.run(nodes.load_custom_node(str(REPOSITORY)))
print(*(name for name in nodes.NODE_CLASS_MAPPINGS if name.startswith("EntropyGuidance")))
"""


@pytest.fixture(scope="module")
def contract():
    return derive()


def test_the_page_is_up_to_date(contract):
    advice = "the pack relies on something else now: python -m tools.contract"
    assert as_json(contract) == DERIVED.read_text(encoding="utf-8"), advice
    assert page(contract) == PAGE.read_text(encoding="utf-8"), advice


def test_nothing_by_hand_is_left_over(contract):
    assert not unused_by_hand(contract)


def test_every_row_holds(contract):
    assert not [f"{finding.row}: {finding.why}" for finding in findings(contract.rows) if finding.here]


def test_imports_chains_tables_and_bases_are_read(contract):
    rows = {str(row): row for row in contract.rows}
    assert GUIDER in rows["comfy.samplers.calc_cond_batch"].files
    assert "nodes/attention/weak_branch.py" in rows["comfy.patcher_extension.WrappersMP.APPLY_MODEL"].files
    assert rows["comfy.ldm.pixart.pixartms.PixArtMS"].needs == ("optimized_attention",)
    assert rows["comfy.text_encoders.gpt_oss.GptOssAttention"].inside
    assert rows["comfy.samplers.CFGGuider.inner_set_conds"].calls == ((1, (), True, (GUIDER,)),)
    assert any("use_scale_shift_norm" in call[1] for call in rows[RESIDUAL].calls)


CODE = """
import comfy.samplers
from comfy import sd1_clip as clip
from .. import other

TABLE = {"comfy.ldm.some.Model": "pattern"}
INLINE: dict = {"comfy.text_encoders.some.Attention": ("attend", print)}
KEY = "some_key"

class Guider(comfy.samplers.CFGGuider):
    def __init__(self, model, *rest):
        super().__init__(model)
        self.own = samplers = comfy.samplers

    def run(self, options):
        samplers = comfy.samplers
        samplers.sampler_object(*self.own, **self.conds)
        return options[KEY], options.get("another"), clip.SDClipModel(device=None).layer, (TABLE, {"attend": run})
"""


def test_code_is_read():
    source = Reader(("nodes", "sampling")).read(ast.parse(CODE))
    assert source.imports == {"nodes", "nodes.other"}
    assert source.symbols["comfy.samplers.CFGGuider"] == {(1, (), True)}
    assert source.symbols["comfy.samplers.sampler_object"] == {(0, (), False)}
    assert source.symbols["comfy.sd1_clip.SDClipModel"] == {(0, ("device",), True)}
    assert source.inherited.keys() == {("comfy.samplers.CFGGuider", "conds")}
    own = {"comfy.text_encoders.some.Attention": (("attend",), True)}
    assert source.classes == {"comfy.ldm.some.Model": (("attend",), False), **own}
    assert undeclared_keys({"": source}) == {"some_key", "another"}


GUIDER = "nodes/sampling/entropy_guider.py"
RESIDUAL = "comfy.ldm.modules.diffusionmodules.openaimodel.ResBlock"
PIXART = "comfy.ldm.pixart.pixartms.PixArtMS"
GEMMA = "comfy.text_encoders.gemma4.Gemma4Attention"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (Row("symbol", "comfy.samplers.no_such_function"), "no_such_function"),
        (Row("symbol", "comfy.no_such_module.function"), "no_such_module"),
        (Row("symbol", RESIDUAL, calls=((3, ("no_such_name",), True, ()),)), "no_such_name"),
        (Row("symbol", RESIDUAL, calls=((1, (), True, ()),)), "missing a required argument"),
        (Row("member", "no_such_method", "comfy.samplers.CFGGuider"), "no_such_method"),
        (
            Row("member", "set_cfg", "comfy.samplers.CFGGuider", calls=((2, (), True, ()),)),
            "too many positional arguments",
        ),
        (Row("parameters", "comfy.samplers.CFGGuider.predict_noise", needs=("timestep", "x")), "x, timestep"),
        (Row("key", "no_such_key", "comfy.samplers"), "no_such_key"),
        (Row("key", "uuids", "comfy.no_such_module"), "no_such_module"),
        (Row("class", PIXART, needs=("no_such_global",)), "no_such_global"),
        (Row("class", GEMMA, needs=("no_such_global",), inside=True), "no_such_global"),
    ],
)
def test_what_has_moved_is_noticed(row, why):
    (finding,) = findings((row,))
    assert finding.here and why in finding.why and finding.is_soft == (row.kind in SOFT)


def test_a_call_that_is_not_known_whole_may_lack_arguments():
    assert not list(findings((Row("symbol", RESIDUAL, calls=((1, ("down",), False, ()),)),)))


def test_a_call_that_fails_concerns_the_files_that_make_it():
    calls = ((1, (), True, ("a.py",)), (1, ("cond",), True, ("b.py",)), (2, (), True, ("c.py",)))
    (finding,) = findings((Row("symbol", "comfy.samplers.KSAMPLER", files=("a.py", "b.py", "c.py"), calls=calls),))
    assert finding.files == ("b.py",)


@pytest.mark.parametrize("name", ["comfy.ldm.no_such_network.Model", "comfy.ldm.pixart.pixartms.NoSuchModel"])
def test_a_network_of_another_release_is_not_here(name):
    (finding,) = findings((Row("class", name, needs=("optimized_attention",)),))
    assert not finding.here


@pytest.fixture(scope="module")
def changed_comfyui(tmp_path_factory):
    """The environment of a process that runs on ComfyUI with the changes of RENAMED, and without others."""
    folder = tmp_path_factory.mktemp("ComfyUI")
    _mirror(COMFYUI, folder)
    for name, (old, new) in RENAMED.items():
        assert (folder / name).is_file() and not (folder / name).is_symlink()
        source = (COMFYUI / name).read_text(encoding="utf-8")
        (folder / name).write_text(re.sub(rf"\b{old}\b", new, source), encoding="utf-8")
    return {**os.environ, "COMFYUI_PATH": str(folder), "COMFYUI_PYTHON": sys.executable}


def _mirror(source: Path, target: Path) -> None:
    """Links to all that is in a folder; the files of RENAMED, and the folders on the way to them, are copies."""
    for entry in source.iterdir():
        inside = entry.relative_to(COMFYUI).as_posix()
        if inside in RENAMED:
            shutil.copy(entry, target / entry.name)
        elif any(name.startswith(f"{inside}/") for name in RENAMED):
            (target / entry.name).mkdir()
            _mirror(entry, target / entry.name)
        elif entry.name != "__pycache__":  # which Python would write to
            (target / entry.name).symlink_to(entry)


def _run(environment: dict, *command: str):
    return subprocess.run([sys.executable, *command], cwd=REPOSITORY, env=environment, capture_output=True, text=True)


def test_the_doctor_names_what_has_moved(changed_comfyui):
    done = _run(changed_comfyui, "-m", "tools.doctor")
    assert done.returncode == 1
    assert re.search("Moved:.*'transformer_index' in .*, comfy.samplers.cfg_function$", done.stderr.strip())
    of_function, of_key = (
        next(line for line in done.stdout.splitlines() if old in line) for old, _ in RENAMED.values()
    )
    assert "nodes/sampling/entropy_guider.py" in of_function and of_function.endswith(
        "available: EntropyGuidanceGuider."
    )
    assert "nodes/attention/kinds.py" in of_key and of_key.endswith(
        "they should: EntropyGuidanceERG, EntropyGuidanceLoadADM."
    )


def test_the_doctor_is_content_with_this_comfyui():
    done = _run({**os.environ}, "-m", "tools.doctor")
    assert done.returncode == 0, done.stdout + done.stderr


def test_nodes_that_do_not_need_it_load(changed_comfyui):
    done = _run(changed_comfyui, "-c", LOAD)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()[-1].split()) == menu().keys() - {"EntropyGuidanceGuider"}
    message = done.stderr.partition("Entropy Guidance and this ComfyUI do not fit")[2]
    assert "comfy.samplers.cfg_function (for nodes/sampling/entropy_guider.py)" in message
    assert "Not available: EntropyGuidanceGuider." in message
    assert "May not work as they should: EntropyGuidanceERG, EntropyGuidanceLoadADM." in message
    assert message.count("Not available") == 1 and "do not fit" not in message and "Traceback" not in done.stderr


@pytest.fixture
def pack(tmp_path, monkeypatch):
    """The name of a pack with a node that works, and one for each way of not working."""
    files = {
        "works": "Works = int",
        "without_package": "import no_such_package",
        "without_symbol": "from comfy.samplers import no_such_symbol",
        "with_a_typing_error": "from .works import Wroks",
        "with_a_bug": "int.no_such_attribute",
    }
    (tmp_path / "pack_of_the_tests" / "nodes").mkdir(parents=True)
    for name, source in files.items():
        (tmp_path / "pack_of_the_tests" / "nodes" / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    return "pack_of_the_tests"


def test_a_node_that_lacks_a_package_takes_no_other_with_it(pack, caplog):
    menu = {"Package": "without_package", "Works": "works", "Symbol": "without_symbol"}
    assert nodes_that_work(menu, pack) == [int]
    (record,) = caplog.records
    assert "nodes/without_package.py: No module named 'no_such_package'. Not available: Package." in record.getMessage()
    assert "Not available: Symbol." in record.getMessage()


@pytest.mark.parametrize("file", ["with_a_typing_error", "with_a_bug", "no_such_file"])
def test_errors_of_the_packs_own_are_raised(pack, file):
    with pytest.raises((ImportError, AttributeError), match="Wroks|no_such"):
        nodes_that_work({"Works": "works", "Other": file}, pack)
