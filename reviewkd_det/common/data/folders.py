"""Files below a folder, through symbolic links as well."""

import os
from collections.abc import Callable, Collection
from pathlib import Path

from PIL import Image

__all__ = ["files_below", "find_files", "image_endings"]


def image_endings() -> set[str]:
    """The endings of file names that Pillow reads as images, such as `.jpg`."""
    return {e for e, kind in Image.registered_extensions().items() if kind in Image.OPEN}


def files_below(folder: Path, endings: Collection[str]) -> list[Path]:
    """List the files of some endings, as `find_files` does.

    Args:
        folder: folder to search, its subfolders too.
        endings: endings in lower case.
    """
    found = find_files(str(folder), lambda name: Path(name).suffix.lower() in endings)
    return [Path(path) for path in found]


def find_files(folder: str, is_wanted: Callable[[str], bool]) -> list[str]:
    """List the files below a folder, sorted by their folders' names and their own.

    Links to folders are followed; a folder that several paths lead to, as in a circle of links, is
    searched once. Hidden files and folders are left out.

    Args:
        folder: folder to search, its subfolders too.
        is_wanted: function of a file's name that says whether it is listed.
    """
    found: list[str] = []
    seen: set[str] = set()
    for path, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(path)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += (
            os.path.join(path, name)
            for name in names
            if not name.startswith(".") and is_wanted(name)
        )
    return sorted(found, key=lambda path: path.split(os.sep))
