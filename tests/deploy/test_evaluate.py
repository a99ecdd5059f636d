"""COCO's AP of detections, and which files it is computed on."""

import json

import numpy as np
import pytest
from PIL import Image

from reviewkd_det.deploy.detections import Detections
from reviewkd_det.deploy.evaluate import evaluate

BOXES = {1: [10.0, 10.0, 50.0, 40.0], 2: [5.0, 20.0, 45.0, 60.0]}


@pytest.fixture
def data(tmp_path):
    for number in BOXES:
        image = Image.fromarray(np.full((80, 80, 3), 100 * number, np.uint8))
        image.save(tmp_path / f"{number}.png")
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 80, "height": 80} for i in BOXES],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {
                "id": i, "image_id": i, "category_id": 7, "iscrowd": 0,
                "area": (x1 - x0) * (y1 - y0), "bbox": [x0, y0, x1 - x0, y1 - y0],
            }
            for i, (x0, y0, x1, y1) in BOXES.items()
        ],
    }  # fmt: skip
    (tmp_path / "val.json").write_text(json.dumps(content))
    return tmp_path


def test_classes_are_matched_by_name(data):
    def detect(image):
        box = BOXES[1 if image.mean() < 150 else 2]
        return Detections(np.array([box], np.float32), np.array([2]), np.array([0.9], np.float32))

    scores = evaluate(detect, ["cat", "bird", "dog"], data / "val.json", data)
    assert scores["bbox"]["AP"] == pytest.approx(100)
    assert np.isnan(scores["bbox"]["APl"])
    wrong = evaluate(detect, ["dog", "bird", "cat"], data / "val.json", data)
    assert wrong["bbox"]["AP"] == pytest.approx(0)


def test_nothing_found_scores_nothing(data):
    def detect(image):
        return Detections(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))

    assert evaluate(detect, ["cat", "dog"], data / "val.json", data)["bbox"]["AP"] == 0


def test_files_that_cannot_be_compared_are_refused(data):
    for classes, text, words in (
        (["dog"], None, r"categories of .* must be classes .*; got 'cat', and the classes are dog"),
        (["dog", "cat"], "{}", "COCO-format file must be one"),
        (["dog", "cat"], "nothing", "COCO-format file must be one"),
        (["dog", "cat"], '{"images": []}', "COCO-format file must be one"),
    ):
        path = data / "val.json"
        if text is not None:
            path = data / "bad.json"
            path.write_text(text)
        with pytest.raises(ValueError, match=words):
            evaluate(lambda image: None, classes, path, data)
    with pytest.raises(FileNotFoundError, match="COCO-format file must exist"):
        evaluate(lambda image: None, ["dog"], data / "none.json", data)
