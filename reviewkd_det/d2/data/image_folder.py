"""Any folder of images as a data set without labels."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from reviewkd_det.common import listed
from reviewkd_det.common.data.folders import files_below, image_endings
from reviewkd_det.common.data.image_check import describe_flaw
from reviewkd_det.d2.data.mapper import find_upright

__all__ = ["is_image_folder", "load_image_folder", "register_image_folder"]

_registered: dict[str, str] = {}


def register_image_folder(name: str, folder: str) -> None:
    """Make a folder of images known to Detectron2 under a new name; it is read on first use.

    Args:
        name: The name for `DATASETS.UNLABELED`.
        folder: Folder that is searched for images, its subfolders and linked folders too.

    Raises:
        ValueError: If the name is taken.
    """
    folder = os.fspath(folder)
    if _registered.get(name) == folder:
        return
    if name in DatasetCatalog:
        raise ValueError(
            f"data set name must be new; got {name!r} for the folder {folder!r}; choose another"
        )
    DatasetCatalog.register(name, partial(load_image_folder, folder))
    MetadataCatalog.get(name).set(image_root=folder)
    _registered[name] = folder


def is_image_folder(name: str) -> bool:
    """Whether a name is of a folder of images, which has no labels."""
    return name in _registered


def load_image_folder(folder: str) -> list[dict]:
    """List the images of a folder as Detectron2's image dictionaries, without annotations.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no image, or some that cannot be read.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"image folder must exist; got {folder!r}")
    paths = [str(path) for path in files_below(Path(folder), image_endings())]
    if not paths:
        raise ValueError(f"image folder must hold an image; got {folder!r} without any")
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        found = list(pool.map(_describe, paths, range(len(paths))))
    if bad := [what for what in found if isinstance(what, str)]:
        raise ValueError(
            f"every image file below {folder!r} must be readable; got {len(bad)} of {len(paths)} "
            f"that are not: {listed(bad, 4)}; take them out"
        )
    return [record for record in found if isinstance(record, dict)]


def _describe(file_name: str, image_id: int) -> dict | str:
    """An image's record, or what is wrong with it."""
    try:
        _, (width, height) = find_upright(file_name)
    except Exception as error:  # Pillow raises many types
        return f"{file_name!r} ({describe_flaw(error)})"
    return {"file_name": file_name, "image_id": image_id, "height": height, "width": width}
