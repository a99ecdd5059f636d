"""Config files and KEY VALUE pairs over a config of known keys, with clear errors."""

import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any

import yaml
from fvcore.common.config import CfgNode

from reviewkd_det.common.config.arithmetic import arithmetic_allowed
from reviewkd_det.common.config.numbers import whole_numbers_as_floats
from reviewkd_det.common.console.arguments import check_config_file

__all__ = ["files_with_bases", "merge_file", "merge_options", "unknown_key"]

# What fvcore and yacs raise on values that are none of theirs.
YACS_ERRORS = (AssertionError, AttributeError, KeyError, RecursionError, TypeError, ValueError)


def merge_file(cfg: CfgNode, config_file: str | Path) -> list[tuple[Path, dict[str, Any]]]:
    """Merge a config file and its bases into a config.

    Args:
        cfg: declares every known key; changed in place.
        config_file: a YAML file, with `_BASE_` as in fvcore and Detectron2; it is read as data
            only, so `!!python` tags are refused, but for the arithmetic of an `eval`. A whole
            number stands for a float as well.

    Returns:
        The file and all its local bases with their contents, the file itself last.

    Raises:
        FileNotFoundError: the file or one of its bases does not exist.
        ValueError: a file is empty or no YAML mapping, or a value has the wrong type.
        KeyError: a key is unknown; the sentence names the nearest known one.
    """
    files = files_with_bases(Path(config_file))
    with arithmetic_allowed():
        _merge(cfg, lambda: cfg.merge_from_file(str(config_file), allow_unsafe=False), config_file)
    return files


def merge_options(cfg: CfgNode, opts: Sequence[str], source: str = "the command line") -> None:
    """Merge alternating keys and values into a config.

    A file that is named without its entry is another than the config's, so the entry that the
    config names, `*_ENTRY`, is dropped.

    Args:
        cfg: declares every known key; changed in place.
        opts: the keys and values.
        source: where they are from, for error sentences.

    Raises:
        ValueError: their number is odd, a key is a section's, or a value has the wrong type.
        KeyError: a key is unknown; the sentence names the nearest known one.
    """
    if len(opts) % 2:
        given = " ".join(map(str, opts))
        raise ValueError(f"options must be KEY VALUE pairs; got {given} in {source}")
    sections = {key for key, value in _items(cfg) if isinstance(value, CfgNode)}
    for key in opts[::2]:
        if not isinstance(key, str) or key in sections:
            raise ValueError(f"option must name one key of a section; got {short(key)} in {source}")
    known = {key for key, _ in _items(cfg)}
    dropped = [f"{key}_ENTRY" for key in opts[::2]]
    dropped = [key for key in dropped if key in known and key not in opts[::2]]
    opts = [*opts, *(part for key in dropped for part in (key, ""))]
    _merge(cfg, lambda: cfg.merge_from_list(list(opts)), source)


def unknown_key(key: str, known: Iterable[str], source: object, more: str = "") -> str:
    """The sentence about a key that is not known, which names the nearest one."""
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.0)
    return f"config key must be known; got {key} in {source}{more}; the nearest is {near[0]}"


def files_with_bases(path: Path, above: tuple[Path, ...] = ()) -> list[tuple[Path, dict[str, Any]]]:
    """The file and all its bases with their contents, the file itself last."""
    check_config_file(path, f", which {above[-1]} names as _BASE_" if above else "")
    if path.resolve() in above:
        raise ValueError(f"_BASE_ must not lead back to its own file; got '{path}' again")
    content = _read(path)
    bases = content.get("_BASE_", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        got = short(bases)
        raise ValueError(f"_BASE_ must be a file name or a list of them; got {got} in '{path}'")
    files = []
    for base in bases:
        if not base.startswith(("http://", "https://")):
            base_path = path.parent / os.path.expanduser(base)
            files += files_with_bases(base_path, (*above, path.resolve()))
    return [*files, (path, content)]


def _read(path: Path) -> dict[str, Any]:
    """One file's own content."""
    text = path.read_bytes()
    try:
        with arithmetic_allowed():
            content = yaml.safe_load(text.decode("utf-8"))
    except Exception as error:  # PyYAML lets through what int, datetime and the stack raise
        reason = " ".join(str(error).split())
        raise ValueError(f"config file must be plain YAML; got '{path}': {reason}") from error
    if not isinstance(content, dict):
        got = "nothing" if content is None else f"{short(content):.80}"
        raise ValueError(f"config file must be a YAML mapping; got '{path}': {got}")
    return content


def _merge(cfg: CfgNode, merge: Callable[[], None], source: object) -> None:
    """Call `merge`, turning what yacs raises into one sentence that names the key."""
    before = dict(_items(cfg))
    try:
        with whole_numbers_as_floats():
            merge()
    except YACS_ERRORS as error:
        unknown = re.search(r"Non-existent (?:config )?key: ([\w.]+)", str(error))
        if unknown is None:
            raise ValueError(f"config must have the known types; got {source}: {error}") from error
        raise KeyError(unknown_key(unknown[1], before, source)) from error
    for key, value in _items(cfg):
        default = before.get(key)
        if value is None and default is not None:  # which yacs allows
            kind = type(default).__name__
            raise ValueError(f"{key} must be of type {kind}; got None in {source}")


def _items(cfg: CfgNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The full name of every section and every key, and what it holds."""
    for key, value in cfg.items():
        yield f"{prefix}{key}", value
        if isinstance(value, CfgNode):
            yield from _items(value, f"{prefix}{key}.")
