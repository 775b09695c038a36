"""A real ComfyUI inside this process, with the pack loaded by ComfyUI's own loader. Import it before ComfyUI."""

import asyncio
import importlib
import sys

import torch

from tools.environment import COMFYUI, FLAGS, REPOSITORY

sys.path.insert(0, str(COMFYUI))  # before anything of this repository that has a name of ComfyUI's

from comfy.cli_args import args, parser  # noqa: E402

parser.parse_args(FLAGS, args)
args.cpu = not torch.cuda.is_available()
args.use_pytorch_cross_attention = True  # as on most GPUs; the server of the tests keeps a CPU's own default

import comfy.utils  # noqa: E402

import nodes  # noqa: E402  (ComfyUI's)


def load_nodes() -> None:
    """Registers ComfyUI's own extra nodes and this pack's."""
    load_pack()
    load_core_nodes()


def load_pack() -> None:
    asyncio.run(nodes.load_custom_node(str(REPOSITORY)))


def load_core_nodes() -> None:
    asyncio.run(nodes.init_builtin_extra_nodes())


def quiet() -> None:
    """No progress bar for each sampling."""
    comfy.utils.set_progress_bar_enabled(False)


def run_node(node_id: str, **inputs):
    """A node's outputs; inputs that are not given take the node's defaults."""
    node = nodes.NODE_CLASS_MAPPINGS[node_id]
    if not hasattr(node, "define_schema"):  # a node of ComfyUI's first API
        return getattr(node(), node.FUNCTION)(**inputs)
    outputs = node.PREPARE_CLASS_CLONE(None).execute(**{**defaults_of(node_id), **inputs})
    return getattr(outputs, "result", outputs)  # a few of ComfyUI's nodes return a tuple


def encode(clip, captions: list[str]) -> list:
    """One CONDITIONING with a row for each caption."""
    rows = [run_node("CLIPTextEncode", clip=clip, text=caption)[0][0] for caption in captions]
    return [[torch.cat([row[0] for row in rows]), rows[0][1]]]


def defaults_of(node_id: str) -> dict:
    """The inputs of a node of ComfyUI's present API that have a default."""
    inputs = nodes.NODE_CLASS_MAPPINGS[node_id].GET_SCHEMA().inputs
    return {one.id: one.default for one in inputs if getattr(one, "default", None) is not None}


def pack_module(name: str):
    """A module of this pack as ComfyUI loaded it, such as nodes.classifiers.adm."""
    return importlib.import_module(f"{_pack()}.{name}")


def pack_node_ids() -> set[str]:
    """Of the nodes that ComfyUI has loaded from this pack."""
    return set(sys.modules[_pack()].NODES) & set(nodes.NODE_CLASS_MAPPINGS)


def _pack() -> str:
    """The name under which ComfyUI loaded this pack."""
    return next(loaded for loaded in sys.modules if loaded.endswith(".nodes.erg")).removesuffix(".nodes.erg")
