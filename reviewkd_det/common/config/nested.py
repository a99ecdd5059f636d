"""Nested settings by their dotted names."""

from collections.abc import Mapping
from typing import Any

__all__ = ["flat"]


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a config or of nested mappings by dotted name; an empty mapping is a value."""
    values: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping) and value
        values |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return values
