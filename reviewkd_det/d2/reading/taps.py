"""Reading what a detector's parts are called with and return, without touching the detector."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from torch import nn

__all__ = ["Call", "only_call", "tapped"]


class Call(NamedTuple):
    """One call of a module: its arguments, those by keyword last, and what it returned."""

    inputs: tuple[Any, ...]
    output: Any


@contextmanager
def tapped(model: nn.Module, names: Sequence[str]) -> Iterator[Mapping[str, list[Call]]]:
    """Record every call of some of a model's modules while the context lasts.

    Args:
        model: the model.
        names: dotted names of its modules.

    Yields:
        The calls of each module so far, in their order.
    """
    calls: dict[str, list[Call]] = {name: [] for name in names}
    with ExitStack() as hooks:
        for name in calls:

            def record(_: nn.Module, args: Any, kwargs: Any, output: Any, into: str = name) -> None:
                calls[into].append(Call((*args, *kwargs.values()), output))

            hook = model.get_submodule(name).register_forward_hook(record, with_kwargs=True)
            hooks.callback(hook.remove)
        yield calls


def only_call(calls: Mapping[str, list[Call]], name: str) -> Call:
    """The one call of a module.

    Raises:
        RuntimeError: it was not called exactly once.
    """
    if len(calls[name]) != 1:
        raise RuntimeError(
            f"student must call its {name} once per training step; got {len(calls[name])} calls"
        )
    return calls[name][0]
