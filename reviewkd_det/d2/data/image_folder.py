"""Any folder of images as a data set without labels."""

import os
from functools import partial
from pathlib import Path

from detectron2.data import DatasetCatalog
from PIL import Image

from reviewkd_det.d2.data.mapper import find_upright, naming

__all__ = ["load_image_folder", "register_image_folder"]

_registered: dict[str, str] = {}


def register_image_folder(name: str, folder: str) -> None:
    """Make a folder of images known to Detectron2 under a new name; it is read on first use.

    Args:
        name: The name for `DATASETS.UNLABELED`.
        folder: Folder that is searched for images, its subfolders too.

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
    _registered[name] = folder


def load_image_folder(folder: str) -> list[dict]:
    """List the images of a folder as Detectron2's image dictionaries, without annotations.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no image, or one that cannot be read.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"image folder must exist; got {folder!r}")
    endings = {e for e, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    paths = sorted(
        path
        for path in Path(folder).rglob("*")
        if path.suffix.lower() in endings and not path.name.startswith(".")
    )
    if not paths:
        raise ValueError(f"image folder must hold an image; got {folder!r} without any")
    return [_describe(str(path), index) for index, path in enumerate(paths)]


def _describe(file_name: str, image_id: int) -> dict:
    with naming(file_name):
        _, (width, height) = find_upright(file_name)
    return {"file_name": file_name, "image_id": image_id, "height": height, "width": width}
