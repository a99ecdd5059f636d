"""Files that are whole or not there at all."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

__all__ = ["PART", "file_name_of", "read_json_object", "replace_file"]

PART = ".part"  # ends the name of what is being written


def file_name_of(name: str, ending: str) -> str:
    """A file's name for whatever has a name: two names never have the same one.

    Args:
        name: any name, such as that of a data set.
        ending: what the file's name ends with, such as `.json`.
    """
    return quote(name, safe=" ") + ending


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file as a whole: whoever reads it finds the old or the new one, and no part of one.

    It is on the disk before it takes its name, so a power cut leaves one of the two as well. Where
    writing fails, as on a full disk, the old one stays.

    Args:
        path: path of the file.
        write: function that writes the content to the path that it is given.
    """
    part = path.with_name(f"{path.name}{PART}")
    try:
        write(part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    _sync_folder(path.parent)


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no file, or none in it that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
