"""Runs a method of ComfyUI's as it is written, under another identity or with a global name meaning something else.

Some of ComfyUI's modules call the attention function without a way for nodes to reach it. Their code need not be copied:
the same code object, given its globals with another attention function among them, becomes the object patch of one clone,
and the module of every other clone keeps the original. The other globals are those of the moment.
"""

from collections.abc import Callable
from functools import lru_cache
from types import CodeType, FunctionType, MethodType
from typing import Any


def rebound(method: MethodType, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> MethodType:
    """The same method with make(what is meant) where its code says `name`.

    make: gets what is meant; for a function, one that calls whatever `name` means in the method's module at the time (its
    attribute `now` gives that). It is called once for each function and name, so that all blocks share one function.
    Raises ValueError where the code of the method, or whatever another node put in its place, has no such global name.
    """
    function = getattr(method, "__func__", None)
    if not isinstance(function, FunctionType) or function.__closure__ or not _says(function.__code__, name):
        called = getattr(method, "__qualname__", method)
        raise ValueError(
            f"{called} does not call {name}, so that its attention is out of reach: another node replaced it. Take that "
            "node out, or this one."
        )
    return MethodType(rebound_function(function, name, make), method.__self__)


def _says(code: CodeType, name: str) -> bool:
    """Whether code, or that of a function inside of it, uses a global name."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return name in code.co_names or any(_says(constant, name) for constant in inner)


@lru_cache(maxsize=512)
def rebound_function(
    function: FunctionType, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> FunctionType:
    """As `rebound`, for a function of a module."""
    meanings = function.__globals__

    def call(*args: Any, **kwargs: Any) -> Any:
        return meanings[name](*args, **kwargs)

    meant: Any = call  # a function of any type may have attributes, which types do not tell
    meant.now = lambda: meanings[name]
    names = {**meanings, name: make(meant if callable(meanings[name]) else meanings[name])}
    names.pop("__name__", None)  # torch.compile would look a module of that name up, and find the original there
    return _function(function, names)


@lru_cache(maxsize=512)
def with_code_of_its_own(function: FunctionType) -> FunctionType:
    """A function that does the same; torch.compile, which goes by the code object, takes it for another one."""
    return _function(function, function.__globals__)


def _function(function: FunctionType, names: dict[str, Any]) -> FunctionType:
    code = function.__code__.replace()
    copy = FunctionType(code, names, function.__name__, function.__defaults__, function.__closure__)
    for attribute in ("__kwdefaults__", "__qualname__", "__module__", "__doc__"):
        setattr(copy, attribute, getattr(function, attribute))
    return copy
