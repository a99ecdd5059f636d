"""Detectron2's mapper with clear errors, upright images and 16-bit grey in its full range.

A camera may store a picture sideways and note in its EXIF data how to turn it. The sizes and boxes
of a COCO-format file are those of the upright picture, as in COCO itself. The official Detectron2
turns the picture on reading, a modified copy may not; here it is always upright. It clips grey
values of 16 bits at 255, which leaves a white picture; here they are scaled to 8 bits. The few such
files are read through a path of the form `upright://<file>`, which becomes known when the first one
is met, so Detectron2's own mapper stays in charge of everything else.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import IO, Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler
from PIL import Image, ImageOps

_UPRIGHT_PREFIX = "upright://"
_EXIF_ORIENTATION = 274
_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap height and width
_READ_ERRORS = (OSError, SyntaxError, Image.DecompressionBombError)  # what Pillow raises mostly
_GREATEST_16_BIT = 65535


class CheckedDatasetMapper(DatasetMapper):
    """`DatasetMapper` that names the file when an image or its annotation cannot be used.

    It is built as its parent is: `CheckedDatasetMapper(cfg, is_train=True)`.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """As the parent; the flips of keypoints are looked up for training alone."""
        if cfg.MODEL.KEYPOINT_ON and not is_train:
            cfg = cfg.clone()
            cfg.defrost()
            cfg.MODEL.KEYPOINT_ON = False
        return super().from_config(cfg, is_train)

    def __call__(self, dataset_dict: dict) -> dict:
        """Map one image dictionary to the model's input; see `DatasetMapper`.

        Where keypoints are trained, an object without any gets invisible ones.

        Raises:
            ValueError: If the image cannot be read or used, or has not the annotated size, or if
                masks are trained and an object has none or has masks of the wrong format.
        """
        file_name = dataset_dict["file_name"]
        if self.is_train:
            self._check_annotations(dataset_dict)
            dataset_dict = self._with_keypoints(dataset_dict)
        with naming(file_name):
            readable_name, size = find_upright(file_name)
        _check_size(dataset_dict, size)
        with naming(file_name):
            mapped = super().__call__({**dataset_dict, "file_name": readable_name})
        mapped["file_name"] = file_name
        return mapped

    def _check_annotations(self, dataset_dict: dict) -> None:
        file_name = dataset_dict["file_name"]
        for instance in dataset_dict.get("annotations", ()):
            if instance.get("iscrowd", 0):
                continue
            if self._lacks_keypoints(instance) and self.keypoint_hflip_indices is None:
                raise ValueError(
                    f"every object of {file_name!r} must have keypoints where the mapper has no "
                    f"keypoint_hflip_indices; got none at box {instance['bbox']}"
                )
            if not self.use_instance_mask:
                continue
            if not instance.get("segmentation"):
                raise ValueError(
                    f"every object of {file_name!r} must have a mask with MODEL.MASK_ON; got none "
                    f"at box {instance['bbox']}; set MODEL.MASK_ON to False to train without masks"
                )
            if self.instance_mask_format == "polygon" and isinstance(
                instance["segmentation"], dict
            ):
                raise ValueError(
                    f"INPUT.MASK_FORMAT must be 'bitmask' for run-length masks; got 'polygon' with "
                    f"one in {file_name!r}"
                )

    def _with_keypoints(self, dataset_dict: dict) -> dict:
        objects = dataset_dict.get("annotations", ())
        if self.keypoint_hflip_indices is None or not any(map(self._lacks_keypoints, objects)):
            return dataset_dict
        none = {"keypoints": [0.0] * (3 * len(self.keypoint_hflip_indices))}
        completed = [{**x, **none} if self._lacks_keypoints(x) else x for x in objects]
        return {**dataset_dict, "annotations": completed}

    def _lacks_keypoints(self, instance: dict) -> bool:
        return self.use_keypoint and not instance.get("keypoints")


@contextmanager
def naming(file_name: str) -> Iterator[None]:
    """Turn whatever goes wrong with an image, in an augmentation too, into an error that names it.

    Raises:
        ValueError: Instead of any other error.
    """
    try:
        yield
    except Exception as error:  # Pillow raises many types, rarely others than _READ_ERRORS
        rule = "readable" if isinstance(error, _READ_ERRORS) else "usable"
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"image file must be {rule}; got {file_name!r}: {reason}") from error


def find_upright(file_name: str) -> tuple[str, tuple[int, int]]:
    """Give the path under which Detectron2 reads an image upright, and the upright size.

    Only the header is read. The path is `file_name` itself unless the file asks to be turned or
    has pixels that Detectron2 would not read as they are meant.

    Args:
        file_name: Path of an image file.

    Returns:
        The path for `detectron2.data.detection_utils.read_image`, and (width, height) in pixels.
    """
    with PathManager.open(file_name, "rb") as file, Image.open(file) as image:
        orientation = _read_orientation(image)
        width, height = image.size
        if (
            image.format == "TIFF" and orientation != 1
        ):  # Pillow turns TIFF itself, on opening or later
            width, height = ImageOps.exif_transpose(image).size
        elif orientation in _SIDEWAYS:
            width, height = height, width
        is_plain = orientation == 1 and not _needs_conversion(image)
    return file_name if is_plain else _upright_path(file_name), (width, height)


def _upright_path(file_name: str) -> str:
    """The path under which this process, from now on, reads an image upright."""
    PathManager.register_handler(_UprightHandler(), allow_override=True)
    return _UPRIGHT_PREFIX + file_name


def _read_orientation(image: Image.Image) -> int:
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # getexif would decode the whole picture to look for a late note
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # Pillow raises many types on broken EXIF data (detectron2 issue 1885)
        return 1
    return orientation if orientation in range(2, 9) else 1


def _needs_conversion(image: Image.Image) -> bool:
    # Of a palette with a transparency for each colour Pillow warns at every conversion to RGB.
    return image.mode[0] in "IF" or (image.mode == "P" and "transparency" in image.info)


def _to_8_bits(image: Image.Image) -> Image.Image:
    """The picture in a mode that can be converted to RGB without loss of range."""
    if image.mode == "P":
        return image.convert("RGBA")  # whose transparency Detectron2 ignores, as of every mode
    if image.mode == "F":
        raise ValueError("pixels must be integers; got mode F")
    values = np.asarray(image)
    if values.min() < 0 or values.max() > _GREATEST_16_BIT:
        raise ValueError(
            f"grey values must be 0 to {_GREATEST_16_BIT}; got {values.min()} to {values.max()}"
        )
    return Image.fromarray((values * (255.0 / _GREATEST_16_BIT)).round().astype(np.uint8))


def _check_size(dataset_dict: dict, size: tuple[int, int]) -> None:
    annotated = (dataset_dict.get("width", size[0]), dataset_dict.get("height", size[1]))
    if annotated != size:
        raise ValueError(
            f"image {dataset_dict['file_name']!r} must have its annotated size "
            f"{annotated[0]}x{annotated[1]}; got {size[0]}x{size[1]} once turned upright; correct "
            "'width' and 'height' (and the boxes) in the JSON file"
        )


class _UprightHandler(PathHandler):
    """Opens `upright://<file>` as that image turned upright, without loss and without the note.

    Grey of 16 bits comes in 8.
    """

    def _get_supported_prefixes(self) -> list[str]:
        return [_UPRIGHT_PREFIX]

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[bytes]:
        file_name = path.removeprefix(_UPRIGHT_PREFIX)
        turned = BytesIO()
        with PathManager.open(file_name, "rb") as file, Image.open(file) as image:
            upright = ImageOps.exif_transpose(image)
            if _needs_conversion(upright):
                upright = _to_8_bits(upright)
            upright.save(turned, "TIFF")  # keeps every other mode, CMYK too
        turned.seek(0)
        return turned
