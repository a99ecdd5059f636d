"""The score from which a detection is good enough to be a label, found on labelled images.

Of each class that at which F1 of precision and recall, at IoU 0.5, is highest. Detections are
matched as COCO does, by pycocotools.
"""

import contextlib
import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from detectron2.structures import BoxMode
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

__all__ = ["Threshold", "find_thresholds", "fixed_thresholds"]

IOU = 0.5
ALL_DETECTIONS = 100_000  # of an image and class


class Threshold(NamedTuple):
    """The least score of a class's labels, and how good such labels are where it was found.

    Args:
        score: the least score.
        objects: labelled objects of the class; None where the score was given.
        precision: part of the labels that are objects, NaN without any.
        recall: part of the objects that get a label, NaN without any.
        is_own: whether it was found for this class alone.
    """

    score: float
    objects: int | None = None
    precision: float = float("nan")
    recall: float = float("nan")
    is_own: bool = True


class _Matches(NamedTuple):
    """Scores of detections, whether each is an object, and the number of objects."""

    scores: np.ndarray
    is_object: np.ndarray
    objects: int


def fixed_thresholds(score: float, classes: int) -> list[Threshold]:
    """One given score for all classes."""
    return [Threshold(score)] * classes


def find_thresholds(
    records: Sequence[Mapping[str, Any]],
    detections: Sequence[Sequence[Mapping[str, Any]]],
    classes: int,
    *,
    min_score: float,
    min_objects: int,
    known: Collection[int] | None = None,
) -> list[Threshold]:
    """Find the score of each class.

    Args:
        records: Detectron2's dictionaries of labelled images.
        detections: of each image what was detected, classes counted from 0, boxes as COCO's.
        classes: number of classes.
        min_score: lowest score that is found.
        min_objects: number of objects below which a class takes the score of all classes together.
        known: classes that the teacher knows, None for all; other objects say nothing of it.

    Raises:
        ValueError: no object of a known class is labelled.
    """
    matches = _match(records, detections, classes)
    usable = [x for index, x in enumerate(matches) if known is None or index in known]
    together = _Matches(
        np.concatenate([x.scores for x in usable]),
        np.concatenate([x.is_object for x in usable]),
        sum(x.objects for x in usable),
    )
    if not together.objects:
        raise ValueError(
            f"the images on which scores are found must have labelled objects; got none in "
            f"{len(records)} images"
        )
    common = _best_score(together, min_score)
    found = []
    for own in matches:
        best = _best_score(own, min_score) if own.objects >= min_objects else None
        score = best if best is not None else min_score if common is None else common
        found.append(_judge(own, score, is_own=best is not None))
    return found


def _best_score(matches: _Matches, min_score: float) -> float | None:
    """The score of highest F1; None where no detection that is an object has so high a score."""
    order = np.argsort(-matches.scores, kind="stable")
    scores, hits = matches.scores[order], matches.is_object[order].cumsum()
    # Equal scores are labels together or not at all.
    is_last = np.append(scores[1:] != scores[:-1], True)[: len(scores)]
    is_candidate = is_last & (scores >= min_score)
    labels = np.arange(1, len(scores) + 1)
    f1 = np.where(is_candidate, 2 * hits / (labels + matches.objects), 0.0)
    return float(scores[f1.argmax()]) if len(f1) and f1.max() > 0 else None


def _judge(matches: _Matches, score: float, *, is_own: bool) -> Threshold:
    hits = matches.is_object[matches.scores >= score]
    nan = float("nan")
    precision = float(hits.mean()) if len(hits) else nan
    recall = float(hits.sum() / matches.objects) if matches.objects else nan
    return Threshold(score, matches.objects, precision, recall, is_own)


def _match(
    records: Sequence[Mapping[str, Any]],
    detections: Sequence[Sequence[Mapping[str, Any]]],
    classes: int,
) -> list[_Matches]:
    """Match as COCO's evaluation does; what lies on a crowd is neither right nor wrong."""
    images = [{"id": i, "width": r["width"], "height": r["height"]} for i, r in enumerate(records)]
    objects = [
        {"image_id": image, "category_id": x["category_id"], "iscrowd": x.get("iscrowd", 0),
         "bbox": _coco_box(x)}
        for image, record in enumerate(records)
        for x in record.get("annotations", ())
    ]  # fmt: skip
    found = [
        {"image_id": image, "category_id": x["category_id"], "bbox": x["bbox"], "score": x["score"]}
        for image, of_image in enumerate(detections)
        for x in of_image
    ]
    for entries in (objects, found):
        for number, entry in enumerate(entries, 1):
            entry |= {"id": number, "area": entry["bbox"][2] * entry["bbox"][3]}
    categories = [{"id": i, "name": str(i)} for i in range(classes)]
    truth, predicted = COCO(), COCO()
    with contextlib.redirect_stdout(io.StringIO()):  # which both fill with progress
        for coco, entries in ((truth, objects), (predicted, found)):
            coco.dataset = {"images": images, "annotations": entries, "categories": categories}
            coco.createIndex()
        judge = COCOeval(truth, predicted, "bbox")
        judge.params.iouThrs = np.array([IOU])
        judge.params.maxDets = [ALL_DETECTIONS]
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.evaluate()
    return [_of_class(judge.evalImgs, index) for index in range(classes)]


def _of_class(judged: Sequence[Any], index: int) -> _Matches:
    own = [x for x in judged if x is not None and x["category_id"] == index]
    scores = [np.empty(0), *(np.array(x["dtScores"], dtype=float) for x in own)]
    hits = [np.empty(0, bool), *(x["dtMatches"][0] > 0 for x in own)]
    counted = [np.empty(0, bool), *(~x["dtIgnore"][0].astype(bool) for x in own)]
    is_counted = np.concatenate(counted)
    objects = sum(int((x["gtIgnore"] == 0).sum()) for x in own)
    return _Matches(np.concatenate(scores)[is_counted], np.concatenate(hits)[is_counted], objects)


def _coco_box(annotation: Mapping[str, Any]) -> list[float]:
    return BoxMode.convert(list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYWH_ABS)
