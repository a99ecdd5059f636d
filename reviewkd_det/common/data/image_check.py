"""Image files opened or decoded once, on all cores; what is known of them is kept in a file.

A file counts as known while its size and its time of change stay the same.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from reviewkd_det.common.runs.files import replace_file

__all__ = [
    "CHECKS",
    "Checked",
    "Share",
    "Size",
    "check_images",
    "decode",
    "describe_flaw",
]

CHECKS = ("full", "files", "none")  # decode every image, read the headers, or neither
LONG_SIDE = 64  # pixels; a JPEG is decoded no larger than it takes to find damage
PER_TASK = 32  # files that a thread looks at in one go

logger = logging.getLogger(__name__)
Size = tuple[int, int]  # width, height, in pixels
Entry = tuple[int, int, int, int, bool]  # bytes, nanoseconds, width, height, whether decoded
Inspect = Callable[[str, bool], Size]


class Checked(NamedTuple):
    """What is known of image files: the size of good ones, what is wrong with the others."""

    sizes: dict[str, Size]
    flaws: dict[str, str]


class Share(NamedTuple):
    """Which part of the files this process looks at, and how the processes tell each other."""

    rank: int = 0
    processes: int = 1
    gather: Callable[[Any], Sequence[Any]] = lambda mine: [mine]


def check_images(
    files: Sequence[str],
    inspect: Inspect,
    *,
    title: str,
    full: bool,
    caches: Sequence[Path] = (),
    share: Share = Share(),  # noqa: B008, a tuple
) -> Checked:
    """Look at image files, each of them once for as long as it does not change.

    Args:
        files: paths of the files.
        inspect: function of a path, and of whether to decode the image, that returns its width and
            height as training sees them; what it raises says what is wrong with the file.
        title: what is checked, for the log and the progress bar.
        full: whether every image is decoded, not only its header read.
        caches: files that may hold what is known; it is read from the first that can be read and
            written to the first that can be written, if any.
        share: part of this process; every process gets the whole result.
    """
    start = time.perf_counter()
    known = _read(caches)
    mine = list(dict.fromkeys(files))[share.rank :: share.processes]
    entries: dict[str, Entry] = {}
    flaws: dict[str, str] = {}
    new = 0
    for path, entry, flaw, is_new in _look(mine, inspect, known, title, full, share):
        new += is_new
        if entry is None:
            flaws[path] = flaw
        else:
            entries[path] = entry
    for others in share.gather((entries, flaws, new)) if share.processes > 1 else ():
        entries |= others[0]
        flaws |= others[1]
    if new and share.rank == 0:
        _write(caches, {**known, **entries})
        seconds = time.perf_counter() - start
        logger.info("%s: checked %d images in %.1f s", title, len(entries) + len(flaws), seconds)
    return Checked({path: (entry[2], entry[3]) for path, entry in entries.items()}, flaws)


def decode(image: Image.Image) -> None:
    """Decode an opened image, a JPEG in small, which takes less time and finds the same damage.

    Raises:
        Exception: of many types, where the image is damaged.
    """
    scale = max(image.size) / LONG_SIDE
    if scale > 1:
        # Of a thin image the shorter side would be 0.
        image.draft(None, (max(1, int(image.width / scale)), max(1, int(image.height / scale))))
    image.load()


def describe_flaw(error: Exception) -> str:
    """What is wrong with an image file, from what reading it raised."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


Found = tuple[str, Entry | None, str, bool]


def _look(
    files: list[str],
    inspect: Inspect,
    known: Mapping[str, Entry],
    title: str,
    full: bool,
    share: Share,
) -> Iterator[Found]:
    def look(path: str) -> Found:
        try:
            status = os.stat(path)
            stamp = status.st_size, status.st_mtime_ns
            before = known.get(path)
            if before and before[:2] == stamp and before[4] >= full:
                return path, before, "", False
            return path, (*stamp, *inspect(path, full), full), "", True
        except Exception as error:  # Pillow raises many types
            return path, None, describe_flaw(error), True

    def look_at_some(some: list[str]) -> list[Found]:
        return [look(path) for path in some]

    rest = iter(files)
    tasks = list(iter(lambda: list(islice(rest, PER_TASK)), []))
    here = max(1, (os.cpu_count() or 1) // share.processes)
    bar = tqdm(
        total=len(files),
        desc=title,
        unit="image",
        delay=1.0,
        leave=False,
        disable=share.rank > 0,
    )
    with bar, ThreadPoolExecutor(min(16, here)) as pool:
        for found in pool.map(look_at_some, tasks):
            bar.update(len(found))
            yield from found


def _read(caches: Sequence[Path]) -> dict[str, Entry]:
    for cache in caches:
        try:
            content = json.loads(cache.read_text(encoding="utf-8"))
            return {
                path: (int(size), int(time_ns), int(width), int(height), bool(decoded))
                for path, (size, time_ns, width, height, decoded) in content.items()
            }
        except (OSError, ValueError, TypeError, AttributeError):
            continue  # none, or one that is damaged: the images are looked at again
    return {}


def _write(caches: Sequence[Path], entries: Mapping[str, Entry]) -> None:
    text = json.dumps(entries)
    for cache in caches:
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            replace_file(cache, lambda part: part.write_text(text, encoding="utf-8"))
        except OSError:  # a folder that is read only, say
            continue
        return
