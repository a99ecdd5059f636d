"""Old names of config keys, which are understood as the new ones."""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

__all__ = ["declare_aliases", "move_aliases", "rename_options"]


def declare_aliases(cfg: CfgNode, aliases: Mapping[str, str]) -> None:
    """Declare old keys with the defaults of the new ones.

    Args:
        cfg: declares the new keys and the sections of the old ones.
        aliases: new keys by old ones, dotted.
    """
    for old, new in aliases.items():
        section, name = _place(cfg, old)
        section[name] = _get(cfg, new)


def rename_options(opts: Sequence[str], aliases: Mapping[str, str]) -> list[str]:
    """Put new keys in the place of old ones in KEY VALUE pairs."""
    return [
        aliases.get(word, word) if i % 2 == 0 and isinstance(word, str) else word
        for i, word in enumerate(opts)
    ]


def move_aliases(
    cfg: CfgNode,
    aliases: Mapping[str, str],
    defaults: CfgNode,
    files: Iterable[tuple[Path, Mapping[str, Any]]] | None = None,
) -> None:
    """Move what was set by an old key to the new one, and give the old one its default again.

    Args:
        cfg: changed in place.
        aliases: new keys by old ones, dotted.
        defaults: the config with nothing set.
        files: contents of the files that were merged, in their order: of both keys the one that
            was set last counts. Without them an old key counts that has not its default, where the
            new one has it.
    """
    for old, new in aliases.items():
        default, given = _get(defaults, old), _get(cfg, old)
        if files is None:
            is_set = given != default and _get(cfg, new) == default
        else:
            setters = [key for _, content in files for key in (old, new) if _has(content, key)]
            is_set = setters[-1:] == [old]
        for key, value, applies in ((new, given, is_set), (old, default, True)):
            if applies:
                section, name = _place(cfg, key)
                section[name] = value


def _place(cfg: CfgNode, key: str) -> tuple[Any, str]:
    *sections, name = key.split(".")
    return reduce(lambda node, part: node[part], sections, cfg), name


def _get(cfg: CfgNode, key: str) -> Any:
    section, name = _place(cfg, key)
    return section[name]


def _has(content: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(content, Mapping) or part not in content:
            return False
        content = content[part]
    return True
