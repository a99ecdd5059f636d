"""The saved config of a run, read as plain data, whatever Python objects its YAML names."""

from pathlib import Path
from typing import Any

import yaml

__all__ = ["read_plain_yaml"]


def read_plain_yaml(path: Path) -> Any:
    """Read a YAML file; a Python object in it, as a saved Python config has, becomes plain data.

    Raises:
        ValueError: it is no YAML.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _PlainLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"config file must be YAML; got '{path}': {reason}") from error


class _PlainLoader(yaml.SafeLoader):
    """Reads Python objects as the mapping, list or text that they are written with."""


def _plain(loader: yaml.SafeLoader, _: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return node.value


_PlainLoader.add_multi_constructor("tag:yaml.org,2002:python/", _plain)
