"""The image files of a run, looked at before it begins."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from classification.data.images import read_rgb
from classification.data.sources import Source
from classification.data.unlabeled import identities
from classification.partly_labeled import UNLABELED
from reviewkd_det.common import listed
from reviewkd_det.common.data.image_check import CHECKS, Share, Size, check_images, decode

__all__ = ["check_source"]

logger = logging.getLogger(__name__)
CACHE = ".checked"  # names the file that keeps what is known of a folder's images
SHOWN = 4  # files that a sentence names


def check_source(
    source: Source,
    root: str,
    check: str,
    *,
    folder: str = "",
    rank: int = 0,
    processes: int = 1,
    gather: Callable[[Any], Sequence[Any]] = lambda mine: [mine],
) -> None:
    """Look at every image file of both splits; images in memory need no look.

    Args:
        source: the data.
        root: folder of the data, which keeps what is known of its files where all are below it.
        check: "full" decodes every image, "files" reads headers alone, "none" does nothing.
        folder: folder of the run, which keeps it where `root` cannot be written to; "" for none.
        rank: number of this process.
        processes: number of processes, each of which looks at a part.
        gather: function that returns what every process has.

    Raises:
        ValueError: `check` is none of these, or files cannot be used.
    """
    if check not in CHECKS:
        raise ValueError(f"DATA.CHECK must be one of {', '.join(CHECKS)}; got {check!r}")
    files: list[str] = []
    for split in (source.train, source.test):
        files += [image for image in split.images if isinstance(image, str)]
    if check == "none" or not files:
        return
    if rank == 0:
        _warn_of_shared(source, root)
    inside = all(Path(file).is_relative_to(root) for file in files) if root else False
    places = [*([root] if inside else []), *([folder] if folder else [])]
    caches = [Path(place, CACHE) for place in places]
    flaws = check_images(
        files,
        _inspect,
        title=f"'{root}'",
        full=check == "full",
        caches=caches,
        share=Share(rank, processes, gather),
    ).flaws
    if flaws:
        shown = listed([f"'{file}' ({what})" for file, what in flaws.items()], SHOWN)
        raise ValueError(
            f"every image of the data must be readable; got {len(flaws)} of {len(files)} that are "
            f"not: {shown}; take them out"
        )


def _warn_of_shared(source: Source, root: str) -> None:
    """Say where labelled training images are the test images, through links or by hard links."""
    labeled = source.train.take((source.train.labels != UNLABELED).nonzero().flatten())
    if isinstance(labeled.images, Tensor) or isinstance(source.test.images, Tensor):
        return
    if shared := len(identities(labeled.images) & identities(source.test.images)):
        logger.warning(
            "%d of the %d test images of '%s' are training images too: the accuracy is then not "
            "that of unseen images",
            shared,
            len(source.test),
            root,
        )


def _inspect(path: str, full: bool) -> Size:
    with Image.open(path) as image:
        size: Size = image.size
        if full and image.mode[0] not in "IF":
            decode(image)
            return size
    if full:
        read_rgb(path)  # which looks at the range of such pixels as well
    return size
