"""The images that a user names: files, folders and the frames of animated files."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageSequence

from reviewkd_det.deploy.images import IMAGE_SUFFIXES, read_image

__all__ = ["ANIMATED", "Frame", "find_files", "image_files", "read_frames"]

ANIMATED = (".gif", ".webp", ".tif", ".tiff")
VIDEO = (".avi", ".mkv", ".mov", ".mp4", ".webm")


class Frame(NamedTuple):
    """An image, or one of the images of a file.

    Args:
        name: its path below the folder that was named, with the number of a frame.
        image: (H, W, 3), uint8, red first.
    """

    name: str
    image: np.ndarray


def image_files(folder: str | Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """The files of a folder and its folders that end like images, in the order of their paths."""
    return sorted(x for x in Path(folder).rglob("*") if x.suffix.lower() in suffixes)


def find_files(paths: Sequence[str | Path]) -> list[tuple[Path, str]]:
    """Find the image files of paths, and what each is called.

    Args:
        paths: image files, or folders whose files are taken, those of their folders too.

    Raises:
        FileNotFoundError: a path is not there.
        ValueError: a path is a video, or there is no image.
    """
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            files = image_files(path, IMAGE_SUFFIXES + ANIMATED)
            found += [(x, x.relative_to(path).as_posix()) for x in files]
        elif not path.is_file():
            raise FileNotFoundError(f"image must exist; got '{path}'")
        elif path.suffix.lower() in VIDEO:
            raise ValueError(
                f"input must be images, a folder or an animated file; got the video '{path}'; "
                f"write its frames first, as with ffmpeg -i {path.name} frames/%06d.png"
            )
        else:
            found.append((path, path.name))
    if not found:
        raise ValueError(f"input must hold an image; got none in {', '.join(map(str, paths))}")
    return found


def read_frames(path: Path, name: str) -> Iterator[Frame]:
    """Read an image file, or each frame of an animated one.

    Args:
        path: path of the file.
        name: what it is called.

    Raises:
        ValueError: it cannot be read.
    """
    if path.suffix.lower() in ANIMATED:
        try:
            with Image.open(path) as file:
                if getattr(file, "n_frames", 1) > 1:
                    for number, frame in enumerate(ImageSequence.Iterator(file), 1):
                        yield Frame(f"{name}#{number}", np.asarray(frame.convert("RGB")))
                    return
        except OSError as error:
            raise ValueError(
                f"image must be one that can be read; got '{path}': {error}"
            ) from error
    yield Frame(name, read_image(path))
