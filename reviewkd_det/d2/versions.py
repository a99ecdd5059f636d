"""Configs of another version of Detectron2, which may name keys that the installed one lacks."""

import logging
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

from detectron2.config import CfgNode

from reviewkd_det.common.config.nested import flat
from reviewkd_det.common.config.yaml_config import unknown_key
from reviewkd_det.d2.compat import NEWER_KEYS

__all__ = ["declare_newer_keys", "remove_newer_keys"]


def declare_newer_keys(cfg: CfgNode) -> list[str]:
    """Declare the keys of newer versions that a config lacks, with their defaults there.

    Returns:
        The dotted names of these keys.
    """
    absent = [key for key in NEWER_KEYS if key not in flat(cfg)]
    for key in absent:
        section, name = _place(cfg, key)
        section[name] = NEWER_KEYS[key]
    return absent


def remove_newer_keys(
    cfg: CfgNode, declared: Sequence[str], given: Iterable[str], source: object
) -> None:
    """Remove the keys that `declare_newer_keys` declared; those that were given are logged.

    Args:
        cfg: changed in place.
        declared: dotted names of the keys.
        given: dotted names of all keys that the user gave, in files or as options.
        source: where they are from, for the sentence.

    Raises:
        KeyError: one has not its default, which the installed version would ignore.
    """
    values = flat(cfg)
    for key in declared:
        section, name = _place(cfg, key)
        del section[name]
    for key in declared:
        if values[key] != NEWER_KEYS[key]:
            more = f", whose value {values[key]!r} needs a newer Detectron2 than the installed one"
            raise KeyError(unknown_key(key, flat(cfg), source, more))
    if left_out := sorted(set(declared) & set(given)):
        logging.getLogger(__name__).warning(
            "Left out of %s, since only a newer Detectron2 knows them, and at the defaults that it "
            "gives them: %s",
            source,
            ", ".join(left_out),
        )


def _place(cfg: CfgNode, key: str) -> tuple[Any, str]:
    *sections, name = key.split(".")
    return reduce(lambda node, part: node[part], sections, cfg), name
