"""The methods' config nodes, made from their settings, and the settings read back."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fvcore.common.config import CfgNode

from reviewkd_det.core import Method, SettingError, Settings, registered_methods

__all__ = [
    "Uses",
    "declare_methods",
    "declared_fields",
    "free_keys",
    "named_by",
    "own_settings",
    "read_settings",
]

# The names of a use that `Settings.default` looks for, such as ("one_stage", "detection").
Uses = Sequence[str]


def declare_methods(section: CfgNode, uses: Sequence[Uses], more: Mapping[str, Any]) -> None:
    """Declare a node for each registered method, named as the method is, in capitals.

    Args:
        section: the config's section of distillation; it gets the nodes.
        uses: what may be trained; where the default of a field depends on it, the key's is None.
        more: further keys of every node, such as that of the warm-up, with their defaults.
    """
    for name, method in registered_methods().items():
        if name.upper() in section:
            raise ValueError(
                f"method name must not be that of another config key; got {name!r}, as which the "
                f"section has {name.upper()}"
            )
        node = type(section)()  # Detectron2 has a kind of its own
        for field, default in declared_fields(method.Settings, uses).items():
            node[field.upper()] = default
        for key, default in more.items():
            node[key] = default
        section[name.upper()] = node


def free_keys(section: str) -> list[str]:
    """The dotted keys of the methods that hold a word or a number.

    Args:
        section: dotted name of the config's section of distillation.
    """
    words = ("LOSS_WEIGHT", "DECAY_SHARE")
    return [f"{section}.{name.upper()}.{word}" for name in registered_methods() for word in words]


def declared_fields(settings: type[Settings], uses: Sequence[Uses]) -> dict[str, Any]:
    """The fields of some settings, and their defaults: None where it depends on the use."""
    found = {}
    for field in dataclasses.fields(settings):
        defaults = {settings.default(field.name, use) for use in uses}
        found[field.name] = defaults.pop() if len(defaults) == 1 else None
    return found


def own_settings(
    section: CfgNode, name: str, aliases: Mapping[str, str], key: str
) -> dict[str, Any]:
    """The values in a method's node by lower-case name, without old names of other keys.

    Args:
        section: the config's section of distillation.
        name: name of the method.
        aliases: new keys by old ones, dotted.
        key: dotted name of the section.
    """
    node = f"{key}.{name.upper()}"
    items = section[name.upper()].items()
    return {word.lower(): value for word, value in items if f"{node}.{word}" not in aliases}


def read_settings(
    method: type[Method], values: Mapping[str, Any], uses: Uses, key: str
) -> Settings:
    """Make the settings of a method.

    Args:
        method: the method.
        values: values by field; None takes the default of the use.
        uses: what is trained.
        key: the config's key of the node, for error sentences.

    Raises:
        ValueError: a value is of another type or out of range.
    """
    given = {name: value for name, value in values.items() if value is not None}
    names = [field.name for field in dataclasses.fields(method.Settings)]
    for name in given:
        if name not in names:
            raise ValueError(f"{key} must have keys of its method, {_keys(names)}; got {name}")
    defaults = {name: method.Settings.default(name, uses) for name in names}
    values = {name: _of_kind(value, defaults[name]) for name, value in given.items()}
    with named_by(key):
        return method.Settings(**{**defaults, **values})


@contextmanager
def named_by(key: str) -> Iterator[None]:
    """Turn a `SettingError` into a sentence that names the config's key.

    Args:
        key: config's key of the method's node.

    Raises:
        ValueError: instead of a `SettingError`.
    """
    try:
        yield
    except SettingError as error:
        name = f"{key}.{error.name.upper()}"
        raise ValueError(f"{name} must {error.rule}; got {error.value}") from error


def _of_kind(value: Any, default: Any) -> Any:
    """A whole number where a float is meant, and any sequence where a tuple is."""
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if isinstance(default, tuple) and isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(value)
    return value


def _keys(names: Iterable[str]) -> str:
    return ", ".join(name.upper() for name in names)
