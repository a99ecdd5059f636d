"""The files of a folder and of the folders in it, which may be links."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from PIL import Image

__all__ = ["files_below", "image_endings"]


def image_endings() -> set[str]:
    """The endings of file names that are read as images, such as `.jpg`."""
    return {e for e, kind in Image.registered_extensions().items() if kind in Image.OPEN}


def files_below(folder: Path, endings: Collection[str]) -> list[Path]:
    """The files of these endings, sorted, but for hidden ones.

    Args:
        folder: folder that is searched; linked folders too, each once.
        endings: endings in lower case.
    """
    return sorted(
        path
        for path in _walk(folder, set())
        if path.suffix.lower() in endings and not path.name.startswith(".")
    )


def _walk(folder: Path, seen: set[str]) -> Iterator[Path]:
    if not folder.is_dir() or (real := os.path.realpath(folder)) in seen:
        return
    seen.add(real)
    for path in folder.iterdir():
        if path.is_dir():
            yield from _walk(path, seen)
        else:
            yield path
