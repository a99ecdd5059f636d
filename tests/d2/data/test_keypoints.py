"""Keypoints of one's own: from a file's categories to the evaluation."""

import copy
import json
import logging
from itertools import islice
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances

from reviewkd_det.d2.config import load_config
from reviewkd_det.d2.data import build_train_loader, register_coco_format
from reviewkd_det.d2.data.checks import check_data
from reviewkd_det.d2.data.keypoints import flip_pairs
from reviewkd_det.d2.evaluators import build_evaluator
from reviewkd_det.d2.runs.from_yaml import build_test_loader
from tests.d2 import scenes, tiny, zoo

POINTS = ["nose", "left_ear", "right_ear"]


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["nose", "left_ear", "right_ear"], [(1, 2)]),
        (["right_ear", "nose", "left_ear"], [(0, 2)]),
        (["earLeft", "earRight", "Left Eye", "Right Eye"], [(0, 1), (2, 3)]),
        (["l_ear", "ear-r", "ear-l", "r_ear"], [(0, 3), (1, 2)]),
        (["LWrist", "RWrist", "L_F_Paw", "R_F_Paw", "EarL", "EarR"], [(0, 1), (2, 3), (4, 5)]),
        (["tail", "left_ear", "bright_spot", "roof"], []),
    ],
)
def test_names_that_differ_in_their_side_are_a_pair(names, pairs):
    assert flip_pairs(names) == [(names[a], names[b]) for a, b in pairs]


@pytest.fixture
def write(tmp_path, request):
    """A function that changes scenes with keypoints and registers them under a new name."""
    json_file, images = scenes.write_scenes(tmp_path)
    base = json.loads(json_file.read_text())
    for entry in base["annotations"]:
        x, y, w, h = entry["bbox"]
        entry["keypoints"] = [x, y, 2, x + w - 1, y, 2, x, y + h - 1, 1]
        entry["num_keypoints"] = 3
    for entry in base["categories"]:
        entry.update(keypoints=POINTS, skeleton=[[1, 2], [1, 3]])
    made = []

    def make(change=lambda content: None):
        content = copy.deepcopy(base)
        change(content)
        name = f"keypoints_{len(made)}_{tmp_path.name}"
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        register_coco_format(name, str(path), str(images))
        made.append(name)
        return name

    yield make
    for name in made:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)


def config(folder, train, test, sigmas=(0.1, 0.1, 0.1), count=3, **extra):
    model = tiny.merged(zoo.KEYPOINT_R_CNN, {"ROI_KEYPOINT_HEAD": {"NUM_KEYPOINTS": count}})
    tree = tiny.detector(
        model,
        width=4,
        pyramid=8,
        DATASETS={"TRAIN": [train], "TEST": [test]},
        TEST={"KEYPOINT_OKS_SIGMAS": list(sigmas), **extra},
        SOLVER={"IMS_PER_BATCH": 4},
        INPUT={"MIN_SIZE_TRAIN": [64], "RANDOM_FLIP": "none"},
        DATALOADER={"NUM_WORKERS": 0},
        OUTPUT_DIR=str(folder / "run"),
    )
    return load_config(tiny.write(folder / "a.yaml", tree))


def test_names_flips_and_skeleton_come_from_the_categories(write):
    name = write(lambda c: c["categories"][0].update(keypoints=[], skeleton=[]))
    DatasetCatalog.get(name)
    metadata = MetadataCatalog.get(name)
    assert metadata.keypoint_names == POINTS
    assert metadata.keypoint_flip_map == [("left_ear", "right_ear")]
    lines = [(a, b) for a, b, _ in metadata.keypoint_connection_rules]
    assert lines == [("nose", "left_ear"), ("nose", "right_ear")]


@pytest.mark.filterwarnings("ignore:Creating a tensor")
def test_objects_without_keypoints_are_trained_on(write, tmp_path):
    def change(content):
        del content["annotations"][0]["keypoints"]
        content["annotations"][3]["keypoints"] = []

    cfg = config(tmp_path, write(change), write())
    check_data(cfg, training=True)
    batches = islice(build_train_loader(cfg), 4)  # of wide and of high images
    batch = [x for images in batches for x in images]
    visible = {x["image_id"]: x["instances"].gt_keypoints.tensor[..., 2].tolist() for x in batch}
    every, none = [2, 2, 1], [0, 0, 0]
    assert visible == {1: [none, every], 2: [every, none], 3: [every] * 2, 4: [every] * 2}


def judged(cfg, name, shift):
    """Results where the keypoints of the first half of the objects are shifted to the right."""
    evaluator = build_evaluator(cfg, name)
    evaluator.reset()
    content = json.loads(Path(MetadataCatalog.get(name).json_file).read_text())
    for image in content["images"]:
        instances = Instances((image["height"], image["width"]))
        objects = [x for x in content["annotations"] if x["image_id"] == image["id"]]
        boxes = torch.tensor([x["bbox"] for x in objects], dtype=torch.float32)
        instances.pred_boxes = Boxes(torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1))
        instances.pred_classes = torch.tensor([x["category_id"] - 1 for x in objects])
        instances.scores = torch.linspace(0.9, 0.5, len(objects))
        points = [x.get("keypoints") or [0] * 9 for x in objects]
        points = torch.tensor(points, dtype=torch.float32).view(len(objects), -1, 3)
        points[..., :2] += 0.5  # as Detectron2 gives them
        points[..., 0] += shift * (image["id"] <= 2)
        instances.pred_keypoints = points
        evaluator.process([{"image_id": image["id"]}], [{"instances": instances}])
    return evaluator.evaluate()["keypoints"]


def test_sigmas_are_those_of_the_config(write, tmp_path):
    name = write()
    wide, narrow = (config(tmp_path, name, name, [sigma] * 3) for sigma in (0.5, 0.001))
    for cfg in (wide, narrow):
        check_data(cfg, training=True)
    assert judged(narrow, name, shift=0)["AP"] == pytest.approx(100)
    assert judged(wide, name, shift=2)["AP"] == pytest.approx(100)
    assert judged(narrow, name, shift=2)["AP"] < 80


def test_fast_evaluation_gives_the_same_numbers_of_keypoints(write, tmp_path):
    pytest.importorskip("faster_coco_eval")

    def change(content):  # without keypoints, without an object of a class, with a crowd
        del content["annotations"][3]["keypoints"], content["annotations"][3]["num_keypoints"]
        content["annotations"][4]["iscrowd"] = 1
        content["categories"].append({"id": 9, "name": "unseen"})

    name = write(change)
    results = []
    for fast in (False, True):
        cfg = config(tmp_path, name, name, FAST_COCO_EVAL=fast)
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = 4
        check_data(cfg, training=True)
        results.append(judged(cfg, name, shift=9))
    assert 0 < results[0]["AP"] < 100
    assert results[1] == pytest.approx(results[0], abs=1e-9, nan_ok=True)


def test_without_sigmas_a_default_is_said_and_taken(write, tmp_path, caplog):
    name = write()
    cfg = config(tmp_path, name, name, [])
    with caplog.at_level(logging.WARNING):
        check_data(cfg, training=True)
    assert "no sigmas for the 3 keypoints" in caplog.text
    assert "0.067" in caplog.text
    assert judged(cfg, name, shift=0)["AP"] == pytest.approx(100)


def test_the_mapper_of_an_evaluation_needs_no_training_data(write, tmp_path):
    name = write()
    loader = build_test_loader(config(tmp_path, "a_name_that_was_never_loaded", name), name)
    assert next(iter(loader))[0]["image"].ndim == 3


def other_names(content):
    content["categories"][1]["keypoints"] = ["a", "b", "c"]


def no_names(content):
    for entry in content["categories"]:
        del entry["keypoints"]


def two_points(content):
    content["annotations"][2]["keypoints"] = [1, 2, 2, 3, 4, 2]


def swapped(content):
    for entry in content["categories"]:
        entry["keypoints"] = ["nose", "right_ear", "left_ear"]


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (None, {"sigmas": [0.1, 0.2]}, r"for each of the 3 .*; got 2: \[0.1, 0.2\]"),
        (None, {"sigmas": [0.1, 0.2, 0.0]}, r"a positive number .*; got 3: \[0.1, 0.2, 0.0\]"),
        (None, {"count": 17, "sigmas": []}, r"NUM_KEYPOINTS must be .*, 3 \(nose, .*\); got 17"),
        (other_names, {}, "must have the same keypoints, .*class 0: nose.*class 1: a, b, c"),
        (no_names, {}, "must name its keypoints with MODEL.KEYPOINT_ON; got none"),
        (two_points, {}, "9 numbers; got 6 at box"),
        (swapped, {}, "must be those of 'keypoints_0_.*nose, left.*; got nose, right"),
    ],
)
def test_what_does_not_fit_is_said_before_training(write, tmp_path, change, options, words):
    train = write()
    cfg = config(tmp_path, train, write(change) if change else train, **options)

    def check():
        check_data(cfg, training=True)
        build_train_loader(cfg)

    with pytest.raises(ValueError, match=words):
        check()


def test_a_skeleton_that_is_no_pairs_is_warned_of_and_not_drawn(write, caplog):
    name = write(lambda content: content["categories"][0].update(skeleton=[[0, 1], [1, 2]]))
    with caplog.at_level(logging.WARNING):
        DatasetCatalog.get(name)
    assert "numbers from 1 to 3; got [[0, 1], [1, 2]]" in caplog.text
    assert MetadataCatalog.get(name).keypoint_connection_rules == []


def test_a_side_without_the_other_is_warned_of(write, tmp_path, caplog):
    def change(content):
        for entry in content["categories"]:
            entry["keypoints"] = ["nose", "left_ear", "tail"]

    name = write(change)
    with caplog.at_level(logging.WARNING):
        check_data(config(tmp_path, name, name), training=True)
    assert "named after a side and have no counterpart" in caplog.text
    assert "left_ear" in caplog.text
