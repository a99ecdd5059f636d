"""Keypoints: what a teacher finds becomes labels that a student trains on."""

import json

import pytest
import torch
from detectron2.data import MetadataCatalog

from reviewkd_det.d2.labels.coco_file import StudentClasses, make_labels
from reviewkd_det.d2.labels.make import prepare_labels
from reviewkd_det.d2.runs import from_yaml
from tests.d2 import tiny
from tests.d2.labels import pool

COUNT = 3
HEAD = {
    "NUM_KEYPOINTS": COUNT, "CONV_DIMS": [8], "MIN_KEYPOINTS_PER_IMAGE": 0,
    "NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS": True,
}  # fmt: skip
KEYPOINTS = tiny.merged(tiny.R_CNN, {"KEYPOINT_ON": True, "ROI_KEYPOINT_HEAD": HEAD})


# Detectron2 makes a tensor of the keypoints of several objects.
@pytest.mark.filterwarnings("ignore:Creating a tensor from a list of numpy:UserWarning")
def test_a_run_with_keypoint_labels_trains(tmp_path):
    config = pool.prepare(tmp_path, KEYPOINTS)
    scenes = json.loads((tmp_path / "scenes.json").read_text())
    for x in scenes["annotations"]:
        left, top, *_ = x["bbox"]
        x |= {"keypoints": [left + 2, top + 3, 2] * COUNT, "num_keypoints": COUNT}
    (tmp_path / "scenes.json").write_text(json.dumps(scenes))
    opts = ["MODEL.DISTILL.METHODS", "()", "DATASETS.TEST", "()", "INPUT.RANDOM_FLIP", "none"]
    cfg = pool.read(config, *opts)
    names = [f"point {i}" for i in range(COUNT)]
    MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).set(keypoint_names=names, keypoint_flip_map=[])
    prepare_labels(cfg)
    label = json.loads(pool.pool_of(cfg)[1].read_text())["annotations"][0]
    assert len(label["keypoints"]) == 3 * COUNT
    assert set(label["keypoints"][2::3]) <= {0, 2}
    trainer = from_yaml.build_trainer(cfg)
    trainer.train()
    assert torch.isfinite(torch.tensor(trainer.storage.history("loss_keypoint").latest()))


def keypoint_labels(count, *scores):
    found = {"category_id": 0, "bbox": [0, 0, 9, 9], "score": 0.9}
    found["keypoints"] = [v for score in scores for v in (4.0, 5.0, score)]
    record = {"file_name": "a/b.png", "height": 20, "width": 20}
    classes = StudentClasses(["one"], [7], keypoints=count)
    made = make_labels([record], [[found]], [0.5], classes, keep_empty=False)
    return made.annotations[0]


def test_a_keypoint_whose_place_is_a_guess_is_not_labelled():
    label = keypoint_labels(2, 0.6, 0.01)
    assert label["keypoints"] == [4.0, 5.0, 2, 0, 0, 0]
    assert label["num_keypoints"] == 1


def test_another_number_of_keypoints_is_refused():
    with pytest.raises(ValueError, match=r"NUM_KEYPOINTS must be that of the teacher .*, 2; got 5"):
        keypoint_labels(5, 0.6, 0.7)
