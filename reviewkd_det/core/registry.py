"""The distillation methods by name."""

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

from reviewkd_det.core.method import Method

__all__ = ["default_method", "find_method", "register", "registered_methods"]

_METHODS: dict[str, type[Method]] = {}
M = TypeVar("M", bound=type[Method])


def register(name: str) -> Callable[[M], M]:
    """Make a method known by name; a decorator of its class.

    Args:
        name: the name; its keys stand in a section of that name in capitals.

    Raises:
        ValueError: another method has the name, apart from its case.
    """

    def add(method: M) -> M:
        taken = {known.upper(): known for known in _METHODS}.get(name.upper())
        known = _METHODS.get(taken or "")
        # A file that is imported a second time defines the same class anew.
        if known is not None and (taken, _origin(known)) != (name, _origin(method)):
            raise ValueError(
                f"method name must be new; got {name!r} of {'.'.join(_origin(method))}, which "
                f"{'.'.join(_origin(known))} has as {taken!r}"
            )
        _METHODS[name] = method
        return method

    return add


def registered_methods() -> Mapping[str, type[Method]]:
    """The methods by name, in the order of their registration."""
    return MappingProxyType(_METHODS)


def default_method() -> str:
    """The name of the method that is trained with unless another is named: the first registered."""
    return next(iter(_METHODS))


def find_method(name: str, key: str = "method") -> type[Method]:
    """Look up a method.

    Args:
        name: name of the method.
        key: where the name is from, for the error sentence.

    Raises:
        ValueError: no method has it; the sentence names the nearest.
    """
    if name not in _METHODS:
        by_lower = {known.lower(): known for known in _METHODS}
        (near,) = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.0)
        raise ValueError(
            f"{key} must name known methods; got {name!r}; the nearest is {by_lower[near]}; "
            f"known: {', '.join(_METHODS)}"
        )
    return _METHODS[name]


def _origin(method: type[Method]) -> tuple[str, str]:
    return method.__module__, method.__qualname__
