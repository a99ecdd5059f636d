"""Old names of config keys."""

from collections.abc import Mapping
from functools import reduce
from typing import Any

from fvcore.common.config import CfgNode

__all__ = ["declare_aliases", "resolve_aliases"]


def declare_aliases(cfg: CfgNode, aliases: Mapping[str, str]) -> None:
    """Declare old keys with the defaults of the new ones.

    Args:
        cfg: declares the new keys and the sections of the old ones.
        aliases: new keys by old ones, dotted.
    """
    for old, new in aliases.items():
        section, name = _place(cfg, old)
        section[name] = _value(cfg, new)


def resolve_aliases(cfg: CfgNode, aliases: Mapping[str, str], defaults: CfgNode) -> None:
    """Move what was set by an old key to the new one.

    Args:
        cfg: changed in place; a key that was moved has its default again.
        aliases: new keys by old ones, dotted.
        defaults: the config with nothing set.

    Raises:
        ValueError: both keys were set, to other values.
    """
    for old, new in aliases.items():
        default, given = _value(defaults, old), _value(cfg, old)
        if given == default:
            continue
        section, name = _place(cfg, new)
        if section[name] not in (default, given):
            raise ValueError(
                f"{old} is the old name of {new} and must not contradict it; got {given} and "
                f"{section[name]}"
            )
        section[name] = given
        section, name = _place(cfg, old)
        section[name] = default


def _place(cfg: CfgNode, key: str) -> tuple[Any, str]:
    *sections, name = key.split(".")
    return reduce(lambda node, part: node[part], sections, cfg), name


def _value(cfg: CfgNode, key: str) -> Any:
    section, name = _place(cfg, key)
    return section[name]
