"""Who may import whom: the menu its wings, no wing the menu, the core nobody, and a user's ComfyUI none of our tools."""

from our_modules import MODULES, imports, loaded_by_comfyui

# For each room what it may import of this repository. `nodes` is the menu, `nodes.common` and `nodes.feedback` are what nodes
# share.
MAY_IMPORT = {
    "nodes": {"nodes.common", "nodes.feedback", "nodes.attention", "nodes.classifiers", "nodes.calibration", "nodes.sampling", "nodes.class_conditional", "nodes.recording", "nodes.drawing", "guidance_core", "demo"},
    "nodes.common": {"nodes.common", "guidance_core"},
    "nodes.feedback": {"guidance_core"},
    "nodes.attention": {"nodes.attention", "nodes.sampling", "nodes.common", "nodes.feedback", "guidance_core"},
    "nodes.classifiers": {"nodes.classifiers", "nodes.common", "nodes.feedback", "guidance_core"},
    "nodes.class_conditional": {"nodes.class_conditional", "nodes.classifiers", "nodes.common", "guidance_core"},
    "nodes.calibration": {"nodes.calibration", "nodes.classifiers", "nodes.drawing", "nodes.common", "guidance_core", "demo"},
    "nodes.recording": {"nodes.recording", "nodes.attention", "nodes.classifiers", "nodes.sampling", "nodes.drawing", "guidance_core"},
    "nodes.drawing": set(),
    "nodes.sampling": {"nodes.sampling", "nodes.common", "nodes.feedback", "guidance_core"},
    "guidance_core": {"guidance_core"},
    "contract": {"contract"},
    "demo": {"demo", "tools"},
    "demo.classes": {"demo", "demo.classes", "benchmarks", "tools", "guidance_core"},  # its training
}  # fmt: skip
COMFYUI = {
    "comfy",
    "comfy_api",
    "comfy_extras",
    "comfyui_version",
    "execution",
    "folder_paths",
    "node_helpers",
    "server",
}


def room_of(module: str) -> str | None:
    return max((room for room in MAY_IMPORT if f"{module}.".startswith(f"{room}.")), key=len, default=None)


def test_rooms_import_what_they_may():
    ours = {module for module in MODULES if room_of(module)}
    pairs = {(module, other) for module in ours for other in imports(module) & MODULES.keys()}
    broken = {(a, b) for a, b in pairs if (room_of(b) or b.split(".")[0]) not in MAY_IMPORT[room_of(a)]}
    assert len(pairs) > 100 and not broken


def test_comfyui_loads_no_tool_of_ours():
    loaded = loaded_by_comfyui()
    assert {"nodes.calibration.fine_tuning", "contract.check"} <= loaded
    tools = {module for module in loaded if module.startswith(("benchmarks", "tools", "tests")) or ".train" in module}
    assert not tools


def test_the_core_knows_nothing_of_comfyui():
    core = {module for module in MODULES if module.startswith("guidance_core")}
    assert not {(module, name) for module in core for name in imports(module) if name.split(".")[0] in COMFYUI}


def test_the_menu_is_a_node_a_file_and_every_wing_has_its_rules():
    menu = {module for module in MODULES if room_of(module) == "nodes" and module != "nodes"}
    assert all(MODULES[module].read_text(encoding="utf-8").count("(io.ComfyNode)") == 1 for module in menu)
    wings = {module for module, path in MODULES.items() if path.name == "__init__.py" and module.startswith("nodes.")}
    assert wings == {room for room in MAY_IMPORT if room.startswith("nodes.")} - {"nodes.feedback"}
