"""What a teacher has detected, image by image, in files that only grow.

A line is a checksum and a JSON object: the image's key, and its detections as COCO writes results,
classes counted from 0. Each process of each run writes a file of its own, and all are read, so runs
share what they detect and a killed one loses no whole line.
"""

import json
import os
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from reviewkd_det.common.runs.files import replace_file

__all__ = ["DetectionFiles", "Detections", "image_key"]

Detections = list[dict[str, Any]]


def image_key(file_name: str) -> str:
    """An image file as it is now: its path, size and time of change."""
    stat = os.stat(file_name)
    return f"{os.path.realpath(file_name)}|{stat.st_size}|{stat.st_mtime_ns}"


class DetectionFiles:
    """The files of one teacher.

    Args:
        folder: folder that holds them; it is made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, keys: Iterable[str], least_score: float = 0.0) -> dict[str, Detections]:
        """Read what is known of some images.

        Args:
            keys: keys of the images.
            least_score: score below which detections are left out.

        Returns:
            Detections by the image's key, for the images that the teacher has seen.
        """
        wanted = set(keys)
        return {
            key: [x for x in found if x["score"] >= least_score]
            for key, found in self._lines()
            if key in wanted
        }

    def known(self, keys: Iterable[str]) -> set[str]:
        """The images of some that the teacher has seen."""
        return set(self.read(keys, least_score=float("inf")))

    def _lines(self) -> Iterator[tuple[str, Detections]]:
        for path in sorted(self.folder.glob("*.jsonl")):
            with path.open("rb") as file:
                for line in file:
                    checksum, _, text = line.rstrip(b"\n").partition(b" ")
                    if checksum == _checksum(text):  # or it was cut, and is detected again
                        content = json.loads(text)
                        yield content["image"], content["detections"]

    def write(self, found: Iterable[tuple[str, Detections]]) -> None:
        """Add what a teacher detects, keys of images and their detections, each as it comes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{time.time_ns()}_{os.getpid()}.jsonl"
        with path.open("wb") as file:
            for key, detections in found:
                text = json.dumps({"image": key, "detections": detections}).encode()
                file.write(_checksum(text) + b" " + text + b"\n")
                file.flush()

    def describe(self, about: Mapping[str, Any]) -> None:
        """Write what is told of the teacher beside the files, for whoever looks at them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(about, indent=2) + "\n"
        replace_file(self.folder / "teacher.json", lambda part: part.write_text(text))


def _checksum(text: bytes) -> bytes:
    return f"{zlib.crc32(text):08x}".encode()
