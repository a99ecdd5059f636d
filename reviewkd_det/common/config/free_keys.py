"""Config keys that hold a word or a number, where a config keeps the type of the first value."""

from collections.abc import Iterable
from functools import reduce
from typing import Any

from fvcore.common.config import CfgNode

__all__ = ["FreeKeys"]


class FreeKeys:
    """Keys that are None while something is merged into a config, so that any type is taken.

    Args:
        cfg: config that declares the keys; changed in place.
        keys: dotted names of the keys.
    """

    def __init__(self, cfg: CfgNode, keys: Iterable[str]) -> None:
        self.cfg = cfg
        self.keys = tuple(keys)
        self.values: dict[str, Any] = {}
        self.take()

    def take(self) -> None:
        """Keep the values that are there, and leave None."""
        for key in self.keys:
            node, name = self._place(key)
            if node[name] is not None:
                self.values[key] = node[name]
                node[name] = None

    def put_back(self) -> None:
        """Put back the last values that were there.

        Raises:
            ValueError: one is neither a word nor a number.
        """
        self.take()
        for key, value in self.values.items():
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise ValueError(f"{key} must be a word or a number; got {value!r}")
            node, name = self._place(key)
            node[name] = value

    def _place(self, key: str) -> tuple[CfgNode, str]:
        *sections, name = key.split(".")
        return reduce(lambda node, part: node[part], sections, self.cfg), name
