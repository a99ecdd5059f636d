"""Keypoints of any kind of object: names, mirror images and skeleton, from a COCO-format file."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.builtin_meta import COCO_PERSON_KEYPOINT_NAMES

__all__ = [
    "COUNT_KEY",
    "are_names",
    "complete_keypoints",
    "flip_pairs",
    "oks_sigmas",
    "set_keypoints",
]

logger = logging.getLogger(__name__)

COUNT_KEY = "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS"
DEFAULT_SIGMA = 0.067  # the mean of COCO's 17
_COLOR = (102, 204, 255)  # of a skeleton's lines, in RGB
# What a name is searched for and its mirror image; a letter alone counts as a word of its own.
_SIDES = [
    (r"left", "right"), (r"right", "left"),
    (r"Left", "Right"), (r"Right", "Left"),
    (r"LEFT", "RIGHT"), (r"RIGHT", "LEFT"),
    (r"(?<![A-Za-z0-9])l(?![A-Za-z0-9])", "r"), (r"(?<![A-Za-z0-9])r(?![A-Za-z0-9])", "l"),
    (r"(?<![A-Za-z0-9])L(?![a-z0-9])", "R"), (r"(?<![A-Za-z0-9])R(?![a-z0-9])", "L"),
    (r"(?<=[a-z])L$", "R"), (r"(?<=[a-z])R$", "L"),
]  # fmt: skip


def set_keypoints(dataset_name: str, categories: Iterable[Mapping[str, Any]]) -> None:
    """Write what a file's categories tell of keypoints to the metadata of its data set.

    Where all that have keypoints have the same, that is `keypoint_names`, `keypoint_flip_map` and
    `keypoint_connection_rules`, as Detectron2 reads them; metadata that is there stays.

    Args:
        dataset_name: name of the data set.
        categories: entries of the section 'categories'.
    """
    metadata = MetadataCatalog.get(dataset_name)
    named = {c["name"]: c["keypoints"] for c in categories if c.get("keypoints")}
    metadata.set(keypoints_by_class=named)
    if metadata.get("keypoint_names") is not None or not named:
        return
    names, *others = named.values()
    if any(other != names for other in others) or not are_names(names):
        return
    skeleton: Any = next((c["skeleton"] for c in categories if c.get("skeleton")), [])
    metadata.set(
        keypoint_names=names,
        keypoint_flip_map=flip_pairs(names),
        keypoint_connection_rules=_connections(names, skeleton, dataset_name),
    )


def flip_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of keypoints that change places in a mirror: left_eye and right_eye, l_eye and r_eye.

    Args:
        names: names of all keypoints; one without a counterpart among them is in no pair.
    """
    pairs = []
    for index, name in enumerate(names):
        for side, other in _SIDES:
            mirrored = re.sub(side, other, name)
            if mirrored in names[index + 1 :]:
                pairs.append((name, mirrored))
                break
    return pairs


def oks_sigmas(cfg: CfgNode, dataset_name: str) -> list[float]:
    """The sigmas that keypoints are judged with; none where they are COCO's, with its own.

    Args:
        cfg: config of the run.
        dataset_name: name of a data set that has been loaded.
    """
    if sigmas := list(cfg.TEST.KEYPOINT_OKS_SIGMAS):
        return sigmas
    names = MetadataCatalog.get(dataset_name).get("keypoint_names", COCO_PERSON_KEYPOINT_NAMES)
    count = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    if list(names) == list(COCO_PERSON_KEYPOINT_NAMES) and count == len(names):
        return []
    return [DEFAULT_SIGMA] * count


def complete_keypoints(annotations: Iterable[dict[str, Any]], count: int) -> None:
    """Give objects what pycocotools asks of each; those without keypoints then do not count.

    Args:
        annotations: objects of a COCO-format file, which are changed.
        count: number of keypoints of an object.
    """
    for annotation in annotations:
        if not annotation.get("keypoints"):
            annotation["keypoints"] = [0] * (3 * count)
        visible = sum(value > 0 for value in annotation["keypoints"][2::3])
        annotation["num_keypoints"] = visible


def are_names(names: Any) -> bool:
    if type(names) is not list or {type(name) for name in names} != {str}:
        return False
    return len(set(names)) == len(names)


def _connections(names: list[str], skeleton: Any, dataset_name: str) -> list[tuple]:
    """Lines between keypoints as Detectron2 draws them; COCO counts keypoints from 1."""
    numbers = range(1, len(names) + 1)
    try:
        return [(names[numbers.index(a)], names[numbers.index(b)], _COLOR) for a, b in skeleton]
    except (TypeError, ValueError):
        logger.warning(
            "The skeleton of '%s' is not drawn: it must be pairs of numbers from 1 to %d; got %s",
            dataset_name,
            len(names),
            skeleton,
        )
        return []
