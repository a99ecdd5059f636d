"""Which checkpoint of a run's folder can be gone on from."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

__all__ = ["LAST", "candidates", "last_good", "tagged"]

LAST = "last_checkpoint"  # Detectron2's file that names one
ENTRIES = {"model", "trainer", "iteration"}  # what a run's checkpoint has at least


def tagged(folder: str) -> str:
    """The checkpoint that the folder names as its last; "" where there is none."""
    tag = Path(folder, LAST)
    path = tag.with_name(tag.read_text(encoding="utf-8").strip()) if tag.is_file() else tag
    return str(path) if path.suffix == ".pth" and path.is_file() else ""


def candidates(folder: str) -> list[str]:
    """What a folder's run could go on from: the tagged checkpoint, then the newest first."""
    numbered = sorted(Path(folder).glob("model_[0-9]*.pth"), reverse=True)
    final = [path for path in [Path(folder, "model_final.pth")] if path.is_file()]
    paths = [tagged(folder), *map(str, [*final, *numbered])]
    return [path for path in dict.fromkeys(paths) if path]


def last_good(folder: str, load: Callable[[str], Mapping[str, Any]], logger: logging.Logger) -> str:
    """The first candidate that is whole; warn of those before it.

    Args:
        folder: of a run, with candidates.
        load: reads a checkpoint; raises ValueError where it cannot.
        logger: of the warnings.

    Raises:
        ValueError: none is whole; the sentence is about the first.
    """
    reasons: dict[str, str] = {}
    for path in candidates(folder):
        try:
            _check_whole(path, load)
        except ValueError as error:
            reasons[path] = str(error)
            continue
        for bad, reason in reasons.items():
            logger.warning("Going on from '%s' instead of '%s': %s", path, bad, reason)
        return path
    raise ValueError(next(iter(reasons.values())))


def _check_whole(path: str, load: Callable[[str], Mapping[str, Any]]) -> None:
    """A file may be truncated, have a bit flipped, or be no checkpoint of a run at all."""
    rule = f"checkpoint to go on from must be whole; got '{path}'"
    try:
        with ZipFile(path) as file:
            damaged = file.testzip()  # PyTorch itself does not compare the checksums
    except (BadZipFile, OSError) as error:
        raise ValueError(f"{rule}: {error}") from error
    if damaged is not None:
        raise ValueError(f"{rule}, in which {damaged} is damaged")
    lacking = sorted(ENTRIES - load(path).keys())
    if lacking:
        raise ValueError(f"{rule}, which is not of a run: it has no {', '.join(lacking)}")
