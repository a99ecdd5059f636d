"""What is checked of keypoints before a training."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from reviewkd_det.d2.data.coco_checks import are_finite
from reviewkd_det.d2.data.keypoints import COUNT_KEY, are_names, oks_sigmas

__all__ = ["check_keypoint_objects", "check_keypoints", "check_sigmas"]

logger = logging.getLogger(__name__)


def check_keypoints(cfg: CfgNode, dataset_names: Sequence[str]) -> None:
    """Check that loaded data sets have the keypoints that the config and the first of them has.

    Args:
        cfg: config of the run, with MODEL.KEYPOINT_ON.
        dataset_names: names of the data sets.

    Raises:
        ValueError: one has no names, several lists of names, or another list or number.
    """
    count = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    for dataset_name in dataset_names:
        names = _names_of(dataset_name)
        if len(names) != count:
            raise ValueError(
                f"{COUNT_KEY} must be the number of keypoints of '{dataset_name}', {len(names)} "
                f"({', '.join(names)}); got {count}"
            )
        if (first := _names_of(dataset_names[0])) != names:
            raise ValueError(
                f"keypoints of '{dataset_name}' must be those of '{dataset_names[0]}', "
                f"{', '.join(first)}; got {', '.join(names)}"
            )
    for dataset_name in dataset_names[:1]:
        _warn_of_sides(dataset_name)


def check_keypoint_objects(records: Iterable[Mapping[str, Any]], count: int) -> None:
    """Check that each object has all keypoints or none.

    Args:
        records: Detectron2's image dictionaries.
        count: number of keypoints of an object.

    Raises:
        ValueError: one has another number.
    """
    for record in records:
        for instance in record.get("annotations", ()):
            found = len(instance.get("keypoints") or ())
            if found not in (0, 3 * count):
                raise ValueError(
                    f"keypoints of an object must be {COUNT_KEY} times x, y and visibility, "
                    f"{3 * count} numbers; got {found} at box {instance['bbox']} of "
                    f"{record['file_name']!r}"
                )


def check_sigmas(cfg: CfgNode, dataset_names: Sequence[str]) -> None:
    """Check TEST.KEYPOINT_OKS_SIGMAS; warn where data sets need some and have COCO's or none.

    Raises:
        ValueError: they are not one positive number for each keypoint.
    """
    sigmas, count = list(cfg.TEST.KEYPOINT_OKS_SIGMAS), cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    if sigmas and (len(sigmas) != count or not are_finite(sigmas) or min(sigmas) <= 0):
        raise ValueError(
            f"TEST.KEYPOINT_OKS_SIGMAS must be a positive number for each of the {count} keypoints "
            f"of {COUNT_KEY}; got {len(sigmas)}: {sigmas}"
        )
    for dataset_name in dataset_names:
        if not sigmas and (used := oks_sigmas(cfg, dataset_name)):
            logger.warning(
                "TEST.KEYPOINT_OKS_SIGMAS gives no sigmas for the %d keypoints of '%s'; %s is "
                "taken for each, the mean of COCO's: compare keypoint AP only where it is the same",
                len(used),
                dataset_name,
                used[0],
            )


def _names_of(dataset_name: str) -> list[str]:
    metadata = MetadataCatalog.get(dataset_name)
    if (names := metadata.get("keypoint_names")) is not None:
        return list(names)
    named = metadata.get("keypoints_by_class", {})
    if not named:
        raise ValueError(
            f"data set '{dataset_name}' must name its keypoints with MODEL.KEYPOINT_ON; got none; "
            "give a category of its JSON file 'keypoints', a list of names, and 'skeleton'"
        )
    for class_name, names in named.items():
        if not are_names(names):
            raise ValueError(
                f"'keypoints' of category {class_name!r} of '{dataset_name}' must be a list of "
                f"names, each once; got {names!r}"
            )
    lists = "; ".join(f"{key}: {', '.join(names)}" for key, names in named.items())
    raise ValueError(
        f"categories of '{dataset_name}' must have the same keypoints, or none, with "
        f"MODEL.KEYPOINT_ON; got {lists}"
    )


def _warn_of_sides(dataset_name: str) -> None:
    """Warn of keypoints that are named after a side and stay where they are in a mirror."""
    metadata = MetadataCatalog.get(dataset_name)
    paired = {name for pair in metadata.get("keypoint_flip_map", ()) for name in pair}
    word = re.compile(r"(?<![a-z])(left|right)(?![a-z])", re.IGNORECASE)
    if alone := [x for x in metadata.keypoint_names if word.search(x) and x not in paired]:
        logger.warning(
            "Keypoints of '%s' are named after a side and have no counterpart in the other, so a "
            "flip leaves them as they are: %s",
            dataset_name,
            ", ".join(alone),
        )
