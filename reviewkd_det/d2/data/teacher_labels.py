"""The teacher's labels of a run as Detectron2's image dictionaries, and what maps them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode

from reviewkd_det.d2.data.coco_checks import read_coco_file
from reviewkd_det.d2.data.coco_format import load_coco_format
from reviewkd_det.d2.data.mapper import CheckedDatasetMapper
from reviewkd_det.d2.labels.settings import KEY, label_file

__all__ = ["MARK", "MixedMapper", "load_labels", "read_content"]

MARK = "teacher_labels"  # key of a record whose labels are a teacher's
KEPT = ("score", "probabilities")


def read_content(path: Path) -> dict[str, Any]:
    """The sections of a file of a teacher's labels, `info` too.

    Raises:
        ValueError: it is not such a file.
    """
    content: dict[str, Any] = read_coco_file(str(path))
    info = content.get("info")
    if not isinstance(info, dict) or not isinstance(info.get("image_root"), str):
        raise ValueError(
            f"the section 'info' of the teacher's labels must be as it was written; got "
            f"{info!r:.80} in '{path}'"
        )
    return content


def load_labels(cfg: CfgNode) -> list[dict[str, Any]]:
    """Read the labels that `prepare_labels` wrote, verified as any other file is.

    Raises:
        FileNotFoundError: nothing was written, or an image is gone.
        ValueError: a file breaks a rule of the format.
    """
    records: list[dict[str, Any]] = []
    for name in cfg.DATASETS.UNLABELED:
        path = label_file(cfg.OUTPUT_DIR, name)
        if not path.is_file():
            raise FileNotFoundError(
                f"{KEY}.ENABLED must be True only where the labels were made first; got no "
                f"'{path}'; train with tools/train_net.py, or call "
                "reviewkd_det.d2.labels.make.prepare_labels"
            )
        root = read_content(path)["info"]["image_root"]
        found = load_coco_format(str(path), root, f"{MARK} {path.resolve()}", more_keys=KEPT)
        records += ({**record, MARK: name} for record in found)
    return records


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
