"""Config keys that the user's own modules declare, as Detectron2's projects do."""

import inspect
import re
from collections.abc import Callable, Iterable
from types import ModuleType

from detectron2.config import CfgNode

__all__ = ["add_own_configs", "find_own_configs", "own_config_names"]

NAME = re.compile(r"add_(\w+_)?config")

_functions: dict[str, Callable[[CfgNode], None]] = {}  # by full name, in the order of their finding


def find_own_configs(modules: Iterable[ModuleType]) -> None:
    """Keep the functions `add_*_config(cfg)` that modules hold, their own or imported ones.

    They are called for every config that is made from now on, a teacher's too.
    """
    for module in modules:
        for name, function in vars(module).items():
            if NAME.fullmatch(name) and inspect.isfunction(function) and _takes_one(function):
                _functions[f"{function.__module__}.{function.__qualname__}"] = function


def add_own_configs(cfg: CfgNode) -> None:
    """Declare the keys of the modules that were imported, with their defaults."""
    for function in _functions.values():
        function(cfg)


def own_config_names() -> list[str]:
    """The full names of the functions that declare keys."""
    return list(_functions)


def _takes_one(function: Callable[..., None]) -> bool:
    """Whether a function, which is not of this package, needs one argument alone."""
    if function.__module__.partition(".")[0] == "reviewkd_det":
        return False
    required = [
        x
        for x in inspect.signature(function).parameters.values()
        if x.default is x.empty and x.kind not in (x.VAR_POSITIONAL, x.VAR_KEYWORD)
    ]
    return len(required) == 1
