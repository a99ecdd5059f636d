"""Thresholds worked out by hand: detections of known places, scores and classes."""

import math

import numpy as np
import pytest
from detectron2.structures import BoxMode

from reviewkd_det.d2.labels.thresholds import find_thresholds

SIDE = 10


def box(place):
    return [20.0 * place, 0.0, SIDE, SIDE]


def image(*objects, mode=BoxMode.XYWH_ABS):
    """An image with objects (class, place), a third value making one a crowd."""
    annotations = [
        {"category_id": c, "bbox": box(place), "bbox_mode": mode, "iscrowd": int(bool(crowd))}
        for c, place, *crowd in objects
    ]
    return {"width": 400, "height": 50, "annotations": annotations}


def found(*detections):
    return [{"category_id": c, "bbox": box(place), "score": s} for c, place, s in detections]


def find(records, detections, classes=1, min_score=0.2, min_objects=1, known=None):
    return find_thresholds(
        records, detections, classes, min_score=min_score, min_objects=min_objects, known=known
    )


def test_the_score_of_highest_f1_is_found():
    # From .9 down: hit, hit, miss, hit, miss of 4 objects: F1 2/5, 4/6, 4/7, 6/8, 6/9.
    records = [image((0, 0), (0, 1)), image((0, 0), (0, 1))]
    detections = [
        found((0, 0, 0.9), (0, 5, 0.7), (0, 6, 0.3)),
        found((0, 0, 0.8), (0, 1, 0.5)),
    ]
    (threshold,) = find(records, detections)
    assert threshold == (0.5, 4, 0.75, 0.75, True)


def test_equal_scores_are_labels_together():
    # One of the two at .6 is a hit: alone it would be best, with the other it is not.
    records = [image((0, 0), (0, 1))]
    detections = [found((0, 0, 0.9), (0, 1, 0.6), (0, 5, 0.6), (0, 6, 0.6), (0, 7, 0.6))]
    assert find(records, detections)[0].score == 0.9


def test_an_object_is_found_once_and_crowds_do_not_count():
    # The second detection of one object is wrong; what lies on a crowd is neither.
    records = [image((0, 0), (0, 3, "crowd"))]
    (threshold,) = find(records, [found((0, 0, 0.9), (0, 0, 0.8), (0, 3, 0.7))])
    assert threshold[:4] == (0.9, 1, 1.0, 1.0)


def test_no_score_under_the_floor_is_found():
    records = [image((0, 0), (0, 1))]
    detections = [found((0, 0, 0.3), (0, 1, 0.1))]
    assert find(records, detections)[0].score == 0.3
    assert find(records, detections, min_score=0.05)[0].score == 0.1
    assert find(records, detections, min_score=0.4)[0].score == 0.4  # where nothing is good enough


def test_a_class_with_few_objects_takes_the_score_of_all():
    records = [image((0, 0), (0, 1), (1, 2))]
    detections = [found((0, 0, 0.9), (0, 1, 0.6), (1, 2, 0.8), (2, 7, 0.95))]
    own, few, none = find(records, detections, classes=3, min_objects=2)
    assert own == (0.6, 2, 1.0, 1.0, True)
    assert few == (0.6, 1, 1.0, 1.0, False)
    assert none[:3] == (0.6, 0, 0.0)
    assert math.isnan(none.recall)
    assert not none.is_own


def test_objects_of_a_class_that_the_teacher_does_not_know_say_nothing_of_it():
    records = [image((0, 0), (0, 1), *((1, place) for place in range(2, 12)))]
    wrong = [(0, place, score) for place, score in ((20, 0.8), (21, 0.7), (22, 0.6))]
    detections = [found((0, 0, 0.9), *wrong, (0, 1, 0.5))]
    assert find(records, detections, classes=2, min_objects=20)[0].score == 0.5
    assert find(records, detections, classes=2, min_objects=20, known={0})[0].score == 0.9
    with pytest.raises(ValueError, match="must have labelled objects; got none in 1 images"):
        find(records, detections, classes=3, known={2})


@pytest.mark.parametrize("mode", [BoxMode.XYXY_ABS, BoxMode.XYWH_ABS])
def test_boxes_of_any_mode_are_understood(mode):
    record = image((0, 1), mode=mode)
    if mode == BoxMode.XYXY_ABS:
        record["annotations"][0]["bbox"] = np.array([20, 0, 30, 10])
    assert find([record], [found((0, 1, 0.9))])[0].recall == 1.0


def test_images_without_any_object_are_refused():
    with pytest.raises(ValueError, match="must have labelled objects; got none in 2 images"):
        find([image(), {"width": 4, "height": 4}], [[], found((0, 0, 0.9))])
