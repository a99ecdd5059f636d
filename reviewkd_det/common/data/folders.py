"""Files below a folder, through symbolic links as well."""

import os
from collections.abc import Callable

__all__ = ["find_files"]


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
