"""The teacher's labels of a run as Detectron2's image dictionaries, and what maps them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from reviewkd_det.common.data.classes import require_same_classes
from reviewkd_det.d2.data.coco_checks import are_finite, read_coco_file
from reviewkd_det.d2.data.coco_format import load_coco_format
from reviewkd_det.d2.data.data_use import DataUse
from reviewkd_det.d2.data.first_use import find_bad_objects
from reviewkd_det.d2.data.keypoint_checks import check_keypoint_objects
from reviewkd_det.d2.data.mapper import CheckedDatasetMapper
from reviewkd_det.d2.labels.settings import KEY, label_file

__all__ = ["MARK", "MixedMapper", "load_labels", "read_content"]

MARK = "teacher_labels"  # key of a record whose labels are a teacher's
KEPT = ("score", "probabilities")
ROUNDING = 0.01  # of a sum of probabilities of six digits


def read_content(path: Path) -> dict[str, Any]:
    """The sections of a file of a teacher's labels, `info` too.

    Raises:
        ValueError: it is not such a file.
    """
    content: dict[str, Any] = read_coco_file(str(path))
    info = content.get("info")
    if not (
        isinstance(info, dict)
        and isinstance(info.get("image_root"), str)
        and isinstance(scores := info.get("thresholds"), dict)
        and are_finite([*scores.values()])
    ):
        raise ValueError(
            f"the section 'info' of the teacher's labels must be as it was written; got "
            f"{info!r:.80} in '{path}'"
        )
    return content


def load_labels(cfg: CfgNode) -> list[dict[str, Any]]:
    """Read the labels that `prepare_labels` wrote, verified as any other file is.

    Raises:
        FileNotFoundError: nothing was written, or an image is gone.
        ValueError: a file breaks a rule of the format, or somebody has changed its classes, or
            objects in a way that they cannot be trained on.
    """
    classes = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).get("thing_classes")
    records: list[dict[str, Any]] = []
    for name in cfg.DATASETS.UNLABELED:
        path = label_file(cfg.OUTPUT_DIR, name)
        if not path.is_file():
            raise FileNotFoundError(
                f"{KEY}.ENABLED must be True only where the labels were made first; got no "
                f"'{path}'; train with tools/train_net.py, or call "
                "reviewkd_det.d2.labels.make.prepare_labels"
            )
        content = read_content(path)
        root = content["info"]["image_root"]
        found = load_coco_format(str(path), root, f"{MARK} {path.resolve()}", more_keys=KEPT)
        _check_labels(content, found, classes, path, cfg)
        records += ({**record, MARK: name} for record in found)
    return records


def _check_labels(
    content: Mapping[str, Any],
    records: Sequence[dict[str, Any]],
    classes: Sequence[str] | None,
    path: Path,
    cfg: CfgNode,
) -> None:
    """Check what a valid file may still have wrong after somebody has edited it."""
    categories = sorted(content["categories"], key=lambda x: x["id"])  # the order of their numbers
    names = [x["name"] for x in categories]
    if classes is not None:
        require_same_classes(
            names,
            classes,
            whose=f"'{path}'",
            known_whose="DATASETS.TRAIN",
            fix="leave the section 'categories' as it was written",
        )
    for label in content["annotations"]:
        where = f"of annotation {label['id']} in '{path}' must be"
        if not _are_parts([score := label.get("score", 1.0)]):
            raise ValueError(f"'score' {where} a number from 0 to 1; got {score!r:.80}")
        if not _are_probabilities(row := label.get("probabilities"), len(names)):
            raise ValueError(
                f"'probabilities' {where} {len(names)} numbers from 0 to 1, or these and the "
                f"background's, which add up to 1; got {row!r:.80}"
            )
    use = DataUse((), (), (), "", masks=cfg.MODEL.MASK_ON, mask_format="bitmask")
    if problems := find_bad_objects(use, {str(path): records}):
        raise ValueError(f"{problems[0]}; the objects are those of '{path}'")
    if cfg.MODEL.KEYPOINT_ON:
        check_keypoint_objects(records, cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS)


def _are_probabilities(row: Any, classes: int) -> bool:
    if not row:
        return row is None  # of an object that somebody added
    if not _are_parts(row):
        return False
    return len(row) == classes or (len(row) == classes + 1 and abs(sum(row) - 1) < ROUNDING)


def _are_parts(values: Any) -> bool:
    return are_finite(values) and min(values) >= 0 and max(values) <= 1


class MixedMapper:
    """Map images with labels of the data, and others with those of a teacher.

    Args:
        cfg: config of the student.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.own = CheckedDatasetMapper(cfg, is_train=True)
        self.taught = _TaughtMapper(cfg, is_train=True)

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """Map an image dictionary to the model's input."""
        return (self.taught if MARK in record else self.own)(record)


class _TaughtMapper(CheckedDatasetMapper):
    """Also maps run-length masks, whatever INPUT.MASK_FORMAT is, and the scores of labels.

    `label_scores` (objects,), and `label_probabilities` (objects, classes) where there are any, are
    beside the instances.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.instance_mask_format = "bitmask"
        self._may_recompute_boxes: bool = self.recompute_boxes

    def _transform_annotations(self, dataset_dict: Any, transforms: Any, image_shape: Any) -> None:
        annotations = [x for x in dataset_dict["annotations"] if not x.get("iscrowd", 0)]
        classes = torch.tensor([x["category_id"] for x in annotations], dtype=torch.int64)
        for place, annotation in enumerate(annotations):
            annotation["category_id"] = place  # by which those that are not cut away are known
        dataset_dict["annotations"] = annotations
        self.recompute_boxes = self._may_recompute_boxes and bool(annotations)  # which needs masks
        super()._transform_annotations(dataset_dict, transforms, image_shape)
        instances = dataset_dict["instances"]
        places = instances.gt_classes
        instances.gt_classes = classes[places]
        dataset_dict["label_scores"] = _column(annotations, "score", 1.0)[places]
        if any("probabilities" in x for x in annotations):
            rows = [x.get("probabilities") for x in annotations]
            width = max(len(row) for row in rows if row)
            unknown = [float("nan")] * width  # of an object that somebody added
            table = torch.tensor([row or unknown for row in rows])
            dataset_dict["label_probabilities"] = table[places]


def _column(annotations: Sequence[dict[str, Any]], key: str, default: float) -> torch.Tensor:
    return torch.tensor([float(x.get(key, default)) for x in annotations])
