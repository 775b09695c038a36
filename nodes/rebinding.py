"""Runs a method of ComfyUI's as it is written, under another identity or with a global name meaning something else.

Some of ComfyUI's modules call the attention function without a way for nodes to reach it. Their code need not be copied:
the same code object, given its globals with another attention function among them, becomes the object patch of one clone,
and the module of every other clone keeps the original.
"""

from collections.abc import Callable
from functools import cache
from types import FunctionType, MethodType


def rebound(method: MethodType, name: str, make: Callable[[Callable], Callable]) -> MethodType:
    """The same method with make(value) where its code says `name`.

    make: called once for each function and name, so that all blocks of a network share one function.
    Raises ValueError where the code of the method, or whatever another node put in its place, has no such global name.
    """
    function = getattr(method, "__func__", None)
    if not isinstance(function, FunctionType) or name not in function.__code__.co_names:
        raise ValueError(f"{getattr(method, '__qualname__', method)} does not call {name}: another node replaced it.")
    return MethodType(rebound_function(function, name, make), method.__self__)


@cache
def rebound_function(function: FunctionType, name: str, make: Callable[[Callable], Callable]) -> FunctionType:
    """As `rebound`, for a plain function."""
    names = {**function.__globals__, name: make(function.__globals__[name])}
    names.pop("__name__", None)  # torch.compile would look a module of that name up, and find the original there
    return _function(function, names)


def with_code_of_its_own(method: MethodType) -> MethodType:
    """A method that does the same; torch.compile, which goes by the code object, takes it for another one."""
    return MethodType(_copy(method.__func__), method.__self__)


@cache
def _copy(function: FunctionType) -> FunctionType:
    return _function(function, function.__globals__)


def _function(function: FunctionType, names: dict) -> FunctionType:
    code = function.__code__.replace()
    copy = FunctionType(code, names, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__, copy.__qualname__, copy.__doc__ = (
        function.__kwdefaults__,
        function.__qualname__,
        function.__doc__,
    )
    return copy
