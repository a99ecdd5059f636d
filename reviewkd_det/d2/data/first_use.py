"""What is wrong with images and objects, found before training and not when they are drawn."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from PIL import Image

from reviewkd_det.common import listed
from reviewkd_det.common.data.image_check import Share, Size, check_images, decode
from reviewkd_det.common.runs.files import file_name_of
from reviewkd_det.d2.data.data_use import DataUse
from reviewkd_det.d2.data.mapper import find_upright

__all__ = ["cache_files", "find_bad_images", "find_bad_objects", "inspect_image"]

CACHE = ".checked"  # ends the name of the file that keeps what is known of a data set's images
KEYPOINTS = "objects must have keypoints where they are trained"
SHOWN = 4  # files that a sentence names
OTHER_FILES = ("sem_seg_file_name", "pan_seg_file_name")  # pictures of labels

logger = logging.getLogger(__name__)
Records = Sequence[dict[str, Any]]


def inspect_image(file_name: str, full: bool) -> Size:
    """The width and height of an image file once upright, in pixels.

    Args:
        file_name: path of the file.
        full: whether the image is decoded, as training would; otherwise its header is read.

    Raises:
        Exception: of many types, where it cannot be read.
    """
    readable, size = find_upright(file_name)
    if full and readable != file_name:
        read_image(readable, "BGR")
    elif full:
        with PathManager.open(file_name, "rb") as file, Image.open(file) as image:
            decode(image)
    return size


def find_bad_images(
    use: DataUse, records: Mapping[str, Records], caches: Mapping[str, Sequence[Path]]
) -> list[str]:
    """Look at every image file of a run's data, as `use.check` says.

    Args:
        use: how the run uses its data.
        records: records of the data sets, by name.
        caches: files that may keep what is known of the images, by name.

    Returns:
        A sentence with how many images cannot be used and what is wrong with the first ones;
        none where all can.
    """
    flaws: dict[str, str] = {}
    for name, of_set in records.items():
        flaws |= _unreadable(use, name, of_set, caches[name]) if use.check != "none" else {}
        flaws |= {k: v for k, v in _too_thin(use, name, of_set).items() if k not in flaws}
    if not flaws:
        return []
    total = len({file for of_set in records.values() for file in _files(of_set)})
    shown = listed([f"'{file}' ({what})" for file, what in flaws.items()], SHOWN)
    return [
        f"every image of the data sets must be usable; got {len(flaws)} of {total} that are not: "
        f"{shown}; correct these files or the JSON file, or take the images out"
    ]


def _unreadable(
    use: DataUse, name: str, records: Records, caches: Sequence[Path]
) -> dict[str, str]:
    files = [*_files(records), *_files(records, OTHER_FILES)]
    rank, processes = comm.get_rank(), comm.get_world_size()
    checked = check_images(
        files,
        inspect_image,
        title=f"'{name}'",
        full=use.check == "full",
        caches=caches,
        share=Share(rank, processes, comm.all_gather),
    )
    flaws = dict(checked.flaws)
    for record in records:
        file = record.get("file_name", "")
        size = checked.sizes.get(file)
        annotated = (record.get("width"), record.get("height"))
        if size and None not in annotated and annotated != size:
            flaws[file] = (
                f"its size must be its annotated size {annotated[0]}x{annotated[1]}; got "
                f"{size[0]}x{size[1]} once turned upright"
            )
    return flaws


def _files(records: Records, keys: Sequence[str] = ("file_name",)) -> list[str]:
    """Local files of the records; those behind a protocol, such as s3://, are not looked at."""
    found = (record.get(key) for record in records for key in keys)
    return [file for file in found if isinstance(file, str) and "://" not in file]


def cache_files(use: DataUse, name: str) -> list[Path]:
    """Beside the annotations or in the folder of images, and else in the run's folder."""
    metadata = MetadataCatalog.get(name)
    in_run = Path(use.folder, "data", file_name_of(name, CACHE))
    if source := metadata.get("converted_from"):
        beside = Path(source, CACHE) if Path(source).is_dir() else Path(f"{source}{CACHE}")
        return [beside, in_run]
    if json_file := metadata.get("json_file"):
        return [Path(f"{json_file}{CACHE}"), in_run]
    if root := metadata.get("image_root"):
        return [Path(root, CACHE), in_run]
    return [in_run]


def _too_thin(use: DataUse, name: str, records: Records) -> dict[str, str]:
    """Images of which resizing would leave less than a pixel."""
    evaluated = use.test_resizes if name in use.test else ()
    trained = use.train_resizes if name in (*use.train, *use.unlabeled) else ()
    sides = list(_sides([*evaluated, *trained]))
    flaws = {}
    for record in records:
        width, height = record.get("width"), record.get("height")
        if not width or not height or max(width, height) < 10 * min(width, height):
            continue
        for edge, most in sides:
            shape = ResizeShortestEdge.get_output_shape(height, width, edge, most)
            if min(shape) < 1:
                flaws[record.get("file_name", "")] = (
                    f"{width}x{height} pixels, of which resizing to at most {most} leaves "
                    f"{shape[1]}x{shape[0]}"
                )
    return flaws


def _sides(resizes: Sequence[Any]) -> Iterator[tuple[int, int]]:
    """The shorter edges that images are resized to, with the longest allowed other one."""
    for resize in resizes:
        if isinstance(resize, ResizeShortestEdge):
            for edge in resize.short_edge_length:
                if edge:
                    yield edge, resize.max_size


def find_bad_objects(use: DataUse, records: Mapping[str, Records]) -> list[str]:
    """Look for objects without what is trained on.

    Args:
        use: how the run uses its data.
        records: records of the training sets, by name.

    Returns:
        A sentence for each rule that objects break.
    """
    rules = _rules(use)
    broken: dict[str, list[str]] = defaultdict(list)
    total = 0
    for of_set in records.values() if rules else ():
        for record in of_set:
            for instance in record.get("annotations", ()):
                if instance.get("iscrowd", 0):
                    continue
                total += 1
                for rule, (breaks, _) in rules.items():
                    if breaks(instance):
                        broken[rule].append(f"'{record['file_name']}' at {instance['bbox']}")
    if not use.all_keypoints and len(broken[KEYPOINTS]) < total:
        broken[KEYPOINTS].clear()  # the mapper gives those objects invisible ones
    return [
        f"{rule}; got {len(places)} of {total} objects that break this: {listed(places, SHOWN)}; "
        f"{rules[rule][1]}"
        for rule, places in broken.items()
        if places
    ]


def _rules(use: DataUse) -> dict[str, tuple[Callable[[dict[str, Any]], bool], str]]:
    """What objects must have: which ones break the rule, and what to do about it."""
    keys = use.keys
    rules: dict[str, tuple[Callable[[dict[str, Any]], bool], str]] = {}
    if use.masks:
        rules[f"every object must have a mask of 3 points or more with {keys.masks} True"] = (
            lambda x: not x.get("segmentation"),
            f"add the masks, or set {keys.masks} to False",
        )
    if use.masks and use.mask_format == "polygon":
        rules[f"{keys.mask_format} must be 'bitmask' for run-length masks"] = (
            lambda x: isinstance(x.get("segmentation"), dict),
            f"set {keys.mask_format} to 'bitmask'",
        )
    if use.keypoints:
        rules[KEYPOINTS] = (
            lambda x: not x.get("keypoints"),
            f"add them, or set {keys.keypoints}, which is True, to False",
        )
    return rules
