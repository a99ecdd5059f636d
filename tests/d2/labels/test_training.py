"""Training on a teacher's labels beside those of the data."""

import json

import pytest
import torch
from detectron2.structures import BitMasks, PolygonMasks
from detectron2.utils.events import EventStorage

from reviewkd_det.d2.data.teacher_labels import MARK
from reviewkd_det.d2.labels.make import prepare_labels
from reviewkd_det.d2.runs import from_yaml
from reviewkd_det.d2.runs.description import describe
from tests.d2 import tiny
from tests.d2.labels import pool
from tests.d2.runs import running

MASKED = tiny.merged(tiny.R_CNN, {"MASK_ON": True})
LABELS = "MODEL.DISTILL.TEACHER_LABELS"
CROPPED = ["INPUT.CROP.ENABLED", True, "MODEL.MASK_ON", False]  # polygons would need shapely
# Detectron2 resizes masks with Pillow, whose arrays PyTorch then finds read-only.
pytestmark = pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = pool.prepare(tmp_path_factory.mktemp("training"), MASKED)
    prepare_labels(pool.read(config))
    return config


def batches(loader, count):
    return [x for _, batch in zip(range(count), loader, strict=False) for x in batch]


def test_a_batch_is_drawn_from_all_labelled_images(config):
    cfg = pool.read(config)
    loader = from_yaml.build_train_loader(cfg)
    given = batches(loader, 9)  # twice the 4 + 5 images
    assert len(given) == 18
    assert not any("unlabeled" in x for x in given)
    taught = [x for x in given if MARK in x]
    assert len(taught) == 10
    assert all(type(x["instances"].gt_masks) is BitMasks for x in taught)
    assert all(type(x["instances"].gt_masks) is PolygonMasks for x in given if MARK not in x)


def test_scores_and_classes_follow_their_objects(config):
    """Through augmentation, and where an object is cut away."""
    cfg = pool.read(config, *CROPPED, "INPUT.CROP.SIZE", "[0.3, 0.3]")
    content = json.loads(pool.pool_of(cfg)[1].read_text())
    known = {}
    for label in content["annotations"]:
        key = (label["image_id"] - 1, round(label["score"], 6))
        known.setdefault(key, set()).add(label["category_id"] - 1)
    numbers = {x["file_name"]: x["id"] - 1 for x in content["images"]}
    counts = {i: sum(x["image_id"] - 1 == i for x in content["annotations"]) for i in range(5)}
    was_cut = False
    for x in batches(from_yaml.build_train_loader(cfg), 9):
        if MARK not in x:
            continue
        number = numbers[x["file_name"].rpartition("/")[2]]
        classes, scores = x["instances"].gt_classes.tolist(), x["label_scores"].tolist()
        was_cut |= len(scores) < counts[number]
        for index, score in zip(classes, scores, strict=True):
            assert index in known[number, round(score, 6)]
    assert was_cut


def test_more_labelled_images_join_each_batch(config):
    cfg = pool.read(config, "SOLVER.UNLABELED_PER_BATCH", 3)
    batch = next(iter(from_yaml.build_train_loader(cfg)))
    assert [MARK in x for x in batch] == [False, False, True, True, True]
    assert all("instances" in x and "unlabeled" not in x for x in batch)


@pytest.mark.parametrize(
    ("key", "change", "words"),
    [
        (
            "categories",
            lambda x: x["name"] != "class 0",
            r"classes of '.*' must be those of DATASETS.TRAIN, .*; got \['class 1', 'class 2'\]",
        ),
        ("annotations", lambda x: x.update(score="high"), "'score' .* from 0 to 1; got 'high'"),
        ("annotations", lambda x: x.update(score=-5), "'score' of annotation 1 in .*; got -5"),
        ("annotations", lambda x: x.update(score=float("nan")), "'score' .*; got nan"),
        (
            "annotations",
            lambda x: x.update(probabilities=[0.5]),
            r"must be 3 numbers from 0 to 1, or these and the background's, .*; got \[0.5\]",
        ),
        ("annotations", lambda x: x.update(probabilities=[0.1] * 4), "add up to 1; got"),
        ("annotations", lambda x: x.update(probabilities=[-0.1] * 3), "from 0 to 1, .*; got"),
        (
            "annotations",
            lambda x: x.pop("segmentation"),
            "must have a mask .*; the objects are those of '.*'",
        ),
    ],
)
def test_labels_that_were_edited_wrongly_are_refused(config, tmp_path, key, change, words):
    cfg = pool.read(config, "OUTPUT_DIR", tmp_path)
    prepare_labels(cfg)
    _, path = pool.pool_of(cfg)
    content = json.loads(path.read_text())
    content["annotations"] = content["annotations"][:2]
    content["annotations"][0]["category_id"] = content["annotations"][1]["category_id"] = 2
    content[key] = [x for x in content[key] if change(x) is not False]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words):
        from_yaml.build_train_loader(cfg)


@pytest.mark.parametrize("keep", [False, True])
def test_images_without_labels_are_trained_on_as_asked(config, tmp_path, keep):
    _, path = pool.pool_of(pool.read(config))
    scores = sorted(x["score"] for x in json.loads(path.read_text())["annotations"])
    opts = ["OUTPUT_DIR", tmp_path, f"{LABELS}.KEEP_EMPTY", keep, f"{LABELS}.SCORE", scores[-1]]
    cfg = pool.read(config, *opts, *CROPPED)
    prepare_labels(cfg)
    loader = from_yaml.build_train_loader(cfg)
    taught = {x["file_name"]: len(x["instances"]) for x in batches(loader, 9) if MARK in x}
    assert len(taught) == (5 if keep else 1)
    if keep:
        model = from_yaml.build_trainer(cfg).model
        empty = [x for x in batches(loader, 9) if not len(x["instances"])][:2]
        with EventStorage():
            assert all(loss.isfinite() for loss in model(empty).values())


@pytest.mark.parametrize(
    ("methods", "soft"),
    [("()", "probabilities"), ("('ReviewKD', 'DKD')", "score")],
)
def test_a_run_with_labels_trains(config, tmp_path, methods, soft):
    opts = ["OUTPUT_DIR", tmp_path, "MODEL.DISTILL.METHODS", methods, f"{LABELS}.SOFT", soft]
    cfg = pool.read(config, *opts, "DATASETS.TEST", "()")
    prepare_labels(cfg)
    trainer = from_yaml.build_trainer(cfg)
    assert ("without a teacher" in describe(trainer.model)) == (methods == "()")
    assert (trainer.model.teacher is None) == (methods == "()")
    trainer.train()
    names = trainer.storage.histories()
    assert all(torch.isfinite(torch.tensor(names[x].latest())) for x in names if "loss" in x)
    assert ("loss_dkd" in names) == (methods != "()")


@pytest.mark.parametrize("soft", ["score", "probabilities"])
def test_a_one_stage_student_learns_from_features_logits_and_labels(tmp_path, soft):
    config = pool.prepare(tmp_path, tiny.RETINANET, SCORE=0.05, SOFT=soft)
    teacher = torch.load(tmp_path / "teacher.pth", weights_only=True)
    teacher["model"]["head.cls_score.bias"] += 3.0  # a new one is too unsure to label
    torch.save(teacher, tmp_path / "teacher.pth")
    cfg = pool.read(config, "MODEL.DISTILL.METHODS", "('ReviewKD', 'DKD')", "DATASETS.TEST", "()")
    prepare_labels(cfg)
    label = json.loads(pool.pool_of(cfg)[1].read_text())["annotations"][0]
    assert ("probabilities" in label) == (soft == "probabilities")
    if soft == "probabilities":
        assert max(label["probabilities"]) == pytest.approx(label["score"], abs=1e-5)
        assert len(label["probabilities"]) == tiny.CLASSES
    trainer = from_yaml.build_trainer(cfg)
    trainer.train()
    assert {"loss_cls", "loss_reviewkd", "loss_dkd"} <= trainer.storage.histories().keys()


def test_the_loader_of_labels_that_were_not_made_says_so(config, tmp_path):
    cfg = pool.read(config, "OUTPUT_DIR", tmp_path)
    with pytest.raises(FileNotFoundError, match="only where the labels were made first; got no"):
        from_yaml.build_train_loader(cfg)


def test_a_stopped_run_with_labels_goes_on_bit_for_bit(tmp_path, monkeypatch):
    config = pool.prepare(tmp_path, tiny.R_CNN)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    opts = ["SOLVER.MAX_ITER", "4", "MODEL.DISTILL.METHODS", "()", "DATASETS.TEST", "()"]
    assert running.run_here(monkeypatch, config, whole, *opts) == 0
    text = (whole / "log.txt").read_text()
    assert "The teacher detects on 5 images" in text
    assert "; the teacher's labels: " in text
    with monkeypatch.context() as patch:
        running.stop_here(patch, 1)
        assert running.run_here(patch, config, stopped, *opts) == 128 + 15
    assert running.run_here(monkeypatch, config, stopped, "--resume", *opts) == 0
    assert "The teacher detects" not in (stopped / "log.txt").read_text()
    running.assert_same_end(whole, stopped)


@pytest.mark.slow
def test_two_processes_share_the_images_and_make_the_same_labels(config, tmp_path):
    opts = [f"{LABELS}.CACHE", str(tmp_path / "cache"), "MODEL.DISTILL.METHODS", "()"]
    two = ["--num-gpus", "2", "--dist-url", "auto", *opts, "DATASETS.TEST", "()"]
    text = running.finish(running.start(config, tmp_path / "two", *two))
    assert "Detected on 3 of 3 images" in text  # of 5
    assert len(list((tmp_path / "cache").rglob("*.jsonl"))) == 2
    _, path = pool.pool_of(pool.read(config))
    (found,) = (tmp_path / "two" / "teacher_labels").iterdir()
    assert (
        json.loads(found.read_text())["annotations"] == json.loads(path.read_text())["annotations"]
    )
