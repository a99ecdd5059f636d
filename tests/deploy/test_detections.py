"""Detections in the pixels of the image: as Detectron2's postprocessing gives them."""

import numpy as np
import pytest
import torch
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from pycocotools import mask as coco_masks

from reviewkd_det.deploy.detections import Detections, in_image

SEEN, SIZE = (48, 64), (101, 150)  # as the network saw it, and the image itself


@pytest.fixture
def found():
    generator = np.random.default_rng(0)
    corners = generator.uniform(-8, 60, (40, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + generator.uniform(0.5, 40, (40, 2))], 1)
    boxes[0, 2] = boxes[0, 0]  # of no area
    masks = generator.uniform(0, 1, (40, 1, 14, 14)).astype(np.float32)
    scores = generator.uniform(0, 1, 40).astype(np.float32)
    return boxes.astype(np.float32), generator.integers(0, 3, 40), scores, masks


def test_boxes_and_masks_are_those_of_detectron2(found):
    boxes, classes, scores, masks = found
    instances = Instances(SEEN)
    instances.pred_boxes = Boxes(torch.from_numpy(boxes.copy()))
    instances.pred_classes, instances.scores = torch.from_numpy(classes), torch.from_numpy(scores)
    instances.pred_masks = torch.from_numpy(masks)
    expected = detector_postprocess(instances, *SIZE)
    ours = in_image(boxes, classes, scores, masks, SEEN, SIZE)
    np.testing.assert_allclose(ours.boxes, expected.pred_boxes.tensor.numpy(), atol=1e-4)
    assert np.array_equal(ours.classes, expected.pred_classes.numpy())
    assert np.array_equal(ours.scores, expected.scores.numpy())
    theirs = expected.pred_masks.numpy()
    assert theirs.any()
    assert (ours.masks != theirs).sum() <= 1e-4 * theirs.sum()  # at the threshold itself


def test_results_are_cocos(found):
    ours = in_image(*found, SEEN, SIZE).of_score(0.5)
    assert ours.scores.min() >= 0.5
    rows = ours.as_coco(7, [11, 12, 13])
    assert len(rows) == len(ours.scores)
    for row, box, label, mask in zip(rows, ours.boxes, ours.classes, ours.masks, strict=True):
        x, y, width, height = row["bbox"]
        assert [x, y, x + width, y + height] == pytest.approx(box.tolist())
        assert (row["image_id"], row["category_id"]) == (7, 11 + label)
        assert np.array_equal(coco_masks.decode(row["segmentation"]), mask)


def test_an_image_without_detections_is_handled():
    empty = np.zeros((0, 4), np.float32), np.zeros(0, int), np.zeros(0, np.float32)
    found = in_image(*empty, np.zeros((0, 1, 14, 14), np.float32), SEEN, SIZE)
    assert found.masks.shape == (0, *SIZE)
    assert found.as_coco(1, [1]) == Detections(*empty).of_score(0.5).as_coco(1, [1]) == []
