"""Reading what a detector's parts are called with and return, without touching the detector."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, TypeVar

from torch import nn

__all__ = ["Call", "bind", "only_call", "replaced", "returned", "tapped"]

C = TypeVar("C")


class Call(NamedTuple):
    """One call of a module: its arguments by the names of its parameters, and what it returned."""

    inputs: Mapping[str, Any]
    output: Any


def bind(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Bind the arguments of a call to the parameters of the module's `forward`.

    Returns:
        As `inspect.Signature.bind`: `arguments` in the order of the parameters, `args`, `kwargs`.
    """
    return inspect.signature(module.forward).bind(*args, **kwargs)


@contextmanager
def tapped(model: nn.Module, names: Sequence[str]) -> Iterator[Mapping[str, list[Call]]]:
    """Record every call of some of a model's modules while the context lasts.

    Args:
        model: model whose modules are called.
        names: dotted names of its modules.

    Yields:
        The calls of each module so far, in their order.
    """
    calls: dict[str, list[Call]] = {name: [] for name in names}
    with ExitStack() as hooks:
        for name in calls:

            def record(
                module: nn.Module, args: Any, kwargs: Any, output: Any, into: str = name
            ) -> None:
                calls[into].append(Call(bind(module, args, kwargs).arguments, output))

            hook = model.get_submodule(name).register_forward_hook(record, with_kwargs=True)
            hooks.callback(hook.remove)
        yield calls


@contextmanager
def replaced(owner: Any, name: str, function: Any) -> Iterator[None]:
    """Let an object have another method inside the block; its class is left alone."""
    setattr(owner, name, function)
    try:
        yield
    finally:
        delattr(owner, name)


@contextmanager
def returned(owner: Any, name: str) -> Iterator[list[Call]]:
    """Record what a method of an object returns inside the block, without its arguments.

    Args:
        owner: the object.
        name: name of the method.

    Yields:
        The calls so far.
    """
    calls: list[Call] = []
    method = getattr(owner, name)

    def record(*args: Any, **kwargs: Any) -> Any:
        calls.append(Call({}, method(*args, **kwargs)))
        return calls[-1].output

    with replaced(owner, name, record):
        yield calls


def only_call(calls: Mapping[str, Sequence[C]], name: str) -> C:
    """The one call of a module.

    Raises:
        RuntimeError: it was not called exactly once.
    """
    if len(calls[name]) != 1:
        raise RuntimeError(
            f"student must call its {name} once per training step; got {len(calls[name])} calls"
        )
    return calls[name][0]
