"""A run's labels, from the teacher's detections to the files in the run's folder."""

import json
import logging
import os
import random
import re
import shutil

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.engine import DefaultPredictor
from detectron2.modeling import GeneralizedRCNN
from PIL import Image
from pycocotools.coco import COCO

from reviewkd_det.d2.data.checks import check_data
from reviewkd_det.d2.labels import detect
from reviewkd_det.d2.labels.inputs import known_classes
from reviewkd_det.d2.labels.make import prepare_labels
from reviewkd_det.d2.labels.settings import label_file
from reviewkd_det.d2.labels.teacher import DetectingTeacher, find_detecting_teacher
from tests.d2 import tiny
from tests.d2.labels import pool

MASKED = tiny.merged(tiny.R_CNN, {"MASK_ON": True})
LABELS = "MODEL.DISTILL.TEACHER_LABELS"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A student's config; what the teacher detects is kept beside its weights."""
    config = pool.prepare(tmp_path_factory.mktemp("made"), MASKED)
    prepare_labels(pool.read(config))
    return config


@pytest.fixture
def built(monkeypatch):
    """The teachers that are built."""
    devices, build = [], DetectingTeacher.build

    def count(self, device):
        devices.append(device)
        return build(self, device)

    monkeypatch.setattr(DetectingTeacher, "build", count)
    return devices


def labels_of(cfg):
    return json.loads(pool.pool_of(cfg)[1].read_text())


def test_the_labels_are_an_ordinary_coco_file(config, tmp_path):
    cfg = pool.read(config, "OUTPUT_DIR", tmp_path)
    told = prepare_labels(cfg)
    name, path = pool.pool_of(cfg)
    coco = COCO(path)
    assert f"labels on 5 images of {name} (0 without any left out), thresholds 0.1" in told
    assert len(coco.imgs) == 5
    assert all((config.parent / "pool" / x["file_name"]).is_file() for x in coco.imgs.values())
    assert [x["name"] for x in coco.cats.values()] == ["class 0", "class 1", "class 2"]
    for label in coco.anns.values():
        assert label["score"] >= 0.1
        assert label["area"] == coco.annToMask(label).sum() > 0
    info = coco.dataset["info"]
    assert info["teacher"]["weights"] == str(config.parent / "teacher.pth")
    assert set(info["thresholds"]) == {"class 0", "class 1", "class 2"}
    assert info["versions"]["torch"] == torch.__version__.partition("+")[0]


def test_the_labels_are_what_the_teacher_detects(config, tmp_path):
    cfg = pool.read(config, "OUTPUT_DIR", tmp_path)
    prepare_labels(cfg)
    content = labels_of(cfg)
    predictor = DefaultPredictor(pool.read(config.parent / "teacher.yaml"))
    image = content["images"][2]
    seen = read_image(str(config.parent / "pool" / image["file_name"]), format="BGR")
    found = predictor(seen)["instances"]
    found = found[found.scores >= 0.1]
    labels = [x for x in content["annotations"] if x["image_id"] == image["id"]]
    boxes = torch.tensor([x["bbox"] for x in labels])
    boxes[:, 2:] += boxes[:, :2]
    kept = found.pred_masks.flatten(1).any(dim=1) & found.pred_boxes.nonempty()
    torch.testing.assert_close(boxes, found[kept].pred_boxes.tensor, atol=0.002, rtol=0)
    assert [x["category_id"] - 1 for x in labels] == found[kept].pred_classes.tolist()


def test_images_that_the_teacher_has_seen_are_not_detected_again(config, tmp_path, built):
    prepare_labels(pool.read(config, "OUTPUT_DIR", tmp_path / "a", f"{LABELS}.SCORE", 0.3))
    assert built == []
    more = shutil.copytree(config.parent / "pool", tmp_path / "more", copy_function=os.symlink)
    name, _ = pool.pool_of(pool.read(config))
    pool.write_images(tmp_path / "new", count=1, seed=2)
    os.rename(tmp_path / "new" / "0.png", more / "new.png")
    folders = f"[['{name}_more', '{more}']]"
    opts = ["DATASETS.IMAGE_FOLDERS", folders, "DATASETS.UNLABELED", f"('{name}_more',)"]
    cfg = pool.read(config, *opts, "OUTPUT_DIR", tmp_path / "b")
    detected = count_detected(cfg)
    assert detected == 1
    assert len(labels_of(cfg)["images"]) == 6


def count_detected(cfg):
    """How many images the teacher detects on."""
    steps, step = [], detect._Progress.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detect._Progress, "step", lambda self: (steps.append(1), step(self)))
        prepare_labels(cfg)
    return len(steps)


def test_what_a_killed_process_has_detected_is_kept(config, tmp_path):
    cfg = pool.read(config, f"{LABELS}.CACHE", tmp_path / "cache", "OUTPUT_DIR", tmp_path / "run")

    def die(self):
        self.done += 1
        if self.done == 3:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detect._Progress, "step", die)
        with pytest.raises(KeyboardInterrupt):
            prepare_labels(cfg)
    (file,) = (tmp_path / "cache").rglob("*.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    assert not pool.pool_of(cfg)[1].exists()
    file.write_bytes(b"".join(lines[:2]) + lines[2][:-20])  # the third was cut amid writing
    assert count_detected(cfg) == 3
    whole = labels_of(cfg)
    prepare_labels(pool.read(config, "OUTPUT_DIR", tmp_path / "other"))
    other = labels_of(pool.read(config, "OUTPUT_DIR", tmp_path / "other"))
    assert whole["annotations"] == other["annotations"]


def test_another_teacher_or_image_is_detected_anew(config, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(config.parent, folder)
    name, _ = pool.pool_of(pool.read(config))
    copied = [f"{name}_copy", str(pool.write_images(tmp_path / "two", count=2))]
    opts = ["DATASETS.IMAGE_FOLDERS", f"[{copied}]", "DATASETS.UNLABELED", f"('{copied[0]}',)"]
    opts += ["MODEL.DISTILL.TEACHER.WEIGHTS", folder / "teacher.pth", "OUTPUT_DIR", tmp_path]
    cfg = pool.read(folder / "student.yaml", *opts)
    assert [count_detected(cfg), count_detected(cfg)] == [2, 0]
    os.utime(tmp_path / "two" / "1.png", (1, 1))
    assert count_detected(cfg) == 1
    text = (folder / "teacher.yaml").read_text().replace("MIN_SIZE_TEST: 64", "MIN_SIZE_TEST: 72")
    (folder / "teacher.yaml").write_text(text)
    assert count_detected(cfg) == 2
    state = torch.load(folder / "teacher.pth", weights_only=True)
    state["model"]["roi_heads.box_predictor.cls_score.bias"] += 0.1
    torch.save(state, folder / "teacher.pth")
    assert count_detected(cfg) == 2


def test_a_run_goes_on_with_its_labels_edited_or_not(config, tmp_path, built):
    cfg = pool.read(config, "OUTPUT_DIR", tmp_path)
    prepare_labels(cfg)
    _, path = pool.pool_of(cfg)
    content = labels_of(cfg)
    del content["annotations"][0]
    path.write_text(json.dumps(content))
    assert f"{len(content['annotations']):,} labels" in prepare_labels(cfg, resume=True)
    prepare_labels(cfg)
    assert len(labels_of(cfg)["annotations"]) == len(content["annotations"]) + 1
    changed = pool.read(config, "OUTPUT_DIR", tmp_path, f"{LABELS}.SCORE", 0.3)
    assert "thresholds 0.3" in prepare_labels(changed, resume=True)
    assert built == []


def test_a_run_that_goes_on_makes_the_files_alone_that_it_lacks(config, tmp_path):
    name, _ = pool.pool_of(pool.read(config))
    copied = [f"{name}_lost", str(pool.write_images(tmp_path / "more", count=2))]
    opts = ["DATASETS.IMAGE_FOLDERS", f"[{copied}]", "OUTPUT_DIR", tmp_path]
    opts += ["DATASETS.UNLABELED", f"{(name, copied[0])}"]
    cfg = pool.read(config, *opts)
    prepare_labels(cfg)
    edited, lost = (label_file(tmp_path, x) for x in (name, copied[0]))
    content = json.loads(edited.read_text())
    content["annotations"] = content["annotations"][:1]
    edited.write_text(json.dumps(content))
    before = lost.read_text()
    lost.unlink()
    prepare_labels(cfg, resume=True)
    assert json.loads(edited.read_text()) == content
    assert lost.read_text() == before


@pytest.mark.parametrize("scores", [None, "high", {"class 0": "high"}])
def test_a_run_does_not_go_on_with_another_file(config, tmp_path, scores):
    cfg = pool.read(config, "OUTPUT_DIR", tmp_path)
    prepare_labels(cfg)
    content = labels_of(cfg)
    content["info"]["thresholds"] = scores
    pool.pool_of(cfg)[1].write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"section 'info' of .* must be as it was written; got"):
        prepare_labels(cfg, resume=True)


def test_no_random_state_moves(config, tmp_path):
    cfg = pool.read(config, "OUTPUT_DIR", tmp_path, f"{LABELS}.CACHE", tmp_path / "cache")
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    prepare_labels(cfg)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (str(np.random.get_state()), random.getstate()) == before[1:]


@pytest.mark.parametrize("keep", [False, True])
def test_images_without_labels_are_kept_or_left_out(config, tmp_path, keep):
    scores = sorted(x["score"] for x in labels_of(pool.read(config))["annotations"])
    opts = ["OUTPUT_DIR", tmp_path, f"{LABELS}.KEEP_EMPTY", keep, f"{LABELS}.SCORE", scores[-1]]
    cfg = pool.read(config, *opts)
    told = prepare_labels(cfg)
    content = labels_of(cfg)
    with_labels = len({x["image_id"] for x in content["annotations"]})
    assert with_labels < 5
    assert len(content["images"]) == (5 if keep else with_labels)
    assert f"({5 - with_labels} without any {'kept' if keep else 'left out'})" in told


def test_the_scores_are_found_on_labelled_images(config, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    opts = [f"{LABELS}.SCORE", "auto", f"{LABELS}.MIN_OBJECTS", 2, "OUTPUT_DIR", tmp_path]
    cfg = pool.read(config, *opts)
    prepare_labels(cfg)
    assert "found on DATASETS.TRAIN; of images that it has learned by heart" in caplog.text
    assert "labels made" in caplog.text
    thresholds = labels_of(cfg)["info"]["thresholds"]
    assert all(x >= 0.2 for x in thresholds.values())


def test_classes_are_mapped_by_name(config, tmp_path, caplog):
    """The teacher knows the student's classes in another order, and one that it does not."""
    name = f"teacher_{tmp_path.name}"
    DatasetCatalog.register(name, list)
    MetadataCatalog.get(name).set(thing_classes=["Class 2", "dog", "class 0"])
    opts = ["MODEL.DISTILL.TEACHER.OPTS", f"['DATASETS.TRAIN', ('{name}',)]"]
    cfg = pool.read(config, *opts, "OUTPUT_DIR", tmp_path)
    before = labels_of(pool.read(config))["annotations"]
    prepare_labels(cfg)
    after = labels_of(cfg)["annotations"]
    expected = {1: 3, 3: 1}  # ids count from 1; the second class is unknown to the student
    assert [x["category_id"] for x in after] == [
        expected[x["category_id"]] for x in before if x["category_id"] in expected
    ]
    assert "does not know 1 of the student's 3 classes" in caplog.text


def test_the_data_of_a_teacher_whose_run_tells_its_classes_is_not_read(config, tmp_path):
    """It may be large, or gone since."""

    def load():
        raise FileNotFoundError

    name = f"gone_{tmp_path.name}"
    DatasetCatalog.register(name, load)
    for file in ("teacher.yaml", "teacher.pth"):
        shutil.copy(config.parent / file, tmp_path)
    (tmp_path / "run.json").write_text('{"classes": ["c", "b", "a"]}')
    opts = ["DATASETS.TRAIN", f"('{name}',)"]
    teacher = find_detecting_teacher(
        str(tmp_path / "teacher.yaml"), str(tmp_path / "teacher.pth"), opts
    )
    assert teacher.classes == ["c", "b", "a"]
    assert teacher.trained_on == (name,)


def test_images_of_one_size_are_detected_in_together(config, tmp_path, monkeypatch):
    """As many as TEST.IMS_PER_BATCH of the teacher's config says, with the same detections."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number, height in enumerate((64, 64, 64, 72, 64)):
        pixels = np.random.default_rng(number).integers(0, 256, (height, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    batches = []
    forward = GeneralizedRCNN.inference
    monkeypatch.setattr(
        GeneralizedRCNN, "inference",
        lambda self, images, *args: (batches.append(len(images)), forward(self, images, *args))[1],
    )  # fmt: skip

    def labels(name, *opts):
        opts = [*opts, f"{LABELS}.CACHE", tmp_path / name, "OUTPUT_DIR", tmp_path / f"run_{name}"]
        sets = ["DATASETS.IMAGE_FOLDERS", [[name, str(folder)]], "DATASETS.UNLABELED", (name,)]
        cfg = pool.read(config, *opts, *sets)
        prepare_labels(cfg)
        keys = "image_id", "category_id", "bbox", "score"
        rows = ([x[key] for key in keys] for x in labels_of(cfg)["annotations"])
        return np.array(sorted([*ids, *bbox, score] for *ids, bbox, score in rows))

    singly = labels("singly")
    assert batches == [1] * 5
    batches.clear()
    together = labels("together", "MODEL.DISTILL.TEACHER.OPTS", ["TEST.IMS_PER_BATCH", "2"])
    assert batches == [2, 1, 1, 1]
    np.testing.assert_allclose(together, singly, atol=2e-3)
    with pytest.raises(ValueError, match=r"TEST\.IMS_PER_BATCH must be at least 1; got 0"):
        labels("refused", "MODEL.DISTILL.TEACHER.OPTS", ["TEST.IMS_PER_BATCH", "0"])


def test_images_need_no_number(config, tmp_path):
    """Detectron2 needs their `image_id` for an evaluation alone."""
    (pool_name,) = pool.read(config).DATASETS.UNLABELED
    records = [
        {k: v for k, v in x.items() if k != "image_id"} for x in DatasetCatalog.get(pool_name)
    ]
    DatasetCatalog.register(name := f"numberless_{tmp_path.name}", lambda: records)
    opts = ["DATASETS.UNLABELED", f"('{name}',)", f"{LABELS}.CACHE", tmp_path / "cache"]
    cfg = pool.read(config, *opts, "OUTPUT_DIR", tmp_path)
    assert count_detected(cfg) == 5
    assert labels_of(cfg)["annotations"] == labels_of(pool.read(config))["annotations"]


@pytest.mark.parametrize(
    ("places", "ids"),
    [
        ({3: 0, 5: 1, 7: 2}, [3, 5, 7]),
        ({7: 0, 5: 1, 3: 2}, [1, 2, 3]),  # of a COCO file's classes the ids ascend
        ({3: 0, 5: 2}, [1, 2, 3]),
        (None, [1, 2, 3]),
    ],
)
def test_the_ids_of_the_classes_ascend(tmp_path, places, ids):
    metadata = MetadataCatalog.get(str(tmp_path)).set(thing_classes=["c", "b", "a"])
    if places is not None:
        metadata.set(thing_dataset_id_to_contiguous_id=places)
    assert known_classes(str(tmp_path)) == (["c", "b", "a"], ids)


def test_names_of_data_with_other_classes_are_not_the_teachers(config, tmp_path, caplog):
    """A config derived from another often names its data still."""
    opts = ["MODEL.DISTILL.TEACHER.OPTS", "['DATASETS.TRAIN', ('coco_2017_train',)]"]
    cfg = pool.read(config, *opts, "OUTPUT_DIR", tmp_path)
    prepare_labels(cfg)
    assert "has 3 classes and names data with 80, coco_2017_train" in caplog.text
    assert labels_of(cfg)["annotations"] == labels_of(pool.read(config))["annotations"]


def refused(config, *opts):
    """The sentence of what is wrong, before training."""
    cfg = pool.read(config, *opts)
    try:
        check_data(cfg, training=True)
        prepare_labels(cfg)
    except (ValueError, KeyError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (
            (f"{LABELS}.SCORE", 1.5),
            "SCORE must be auto, or a number above 0 and at most 1; got 1.5",
        ),
        ((f"{LABELS}.SCORE", "high"), "SCORE must be auto, or .*; got 'high'"),
        ((f"{LABELS}.SCORE", 0.999), "must find a label in 'pool_.*'; got none of score 0.999"),
        ((f"{LABELS}.SOFT", "no"), "SOFT must be .*; got 'no'"),
        ((f"{LABELS}.MIN_SCORE", 0.0), "MIN_SCORE must be above 0 .*; got 0.0"),
        ((f"{LABELS}.MIN_OBJECTS", 0), "MIN_OBJECTS must be at least 1; got 0"),
        ((f"{LABELS}.CALIBRATION", "('none',)"), "CALIBRATION must name registered .* got 'none'"),
        (("DATASETS.UNLABELED", "()"), "DATASETS.UNLABELED must name the images .*; got none"),
        (("MODEL.DISTILL.TEACHER.CONFIG_FILE", ""), "CONFIG_FILE must name the teacher that label"),
        (
            ("MODEL.DISTILL.STUDENT_META_ARCHITECTURE", "PanopticFPN"),
            "ENABLED must be False for a student that labels every pixel; got True with Pano",
        ),
        (("DATALOADER.SAMPLER_TRAIN", "WeightedTrainingSampler"), "SAMPLER_TRAIN must not weight"),
    ],
)
def test_what_cannot_be_labelled_is_refused(config, tmp_path, opts, words):
    assert re.search(words, refused(config, *opts, "OUTPUT_DIR", tmp_path))


def test_a_score_that_is_neither_word_nor_number_is_refused(config):
    with pytest.raises(ValueError, match=r"SCORE must be a word or a number; got True"):
        pool.read(config, f"{LABELS}.SCORE", True)


def test_the_test_set_is_refused_as_calibration(config, tmp_path):
    (name,) = pool.read(config).DATASETS.TEST
    words = refused(config, f"{LABELS}.CALIBRATION", f"('{name}',)", "OUTPUT_DIR", tmp_path)
    assert re.search(f"CALIBRATION must name no data set of DATASETS.TEST, .*; got '{name}'", words)


def test_images_with_labels_of_their_own_are_not_labelled(config, tmp_path):
    (train,) = pool.read(config).DATASETS.TRAIN
    opts = ["DATASETS.UNLABELED", f"('{train}',)", "OUTPUT_DIR", tmp_path]
    assert f"got '{train}' with 4 images and none left" in refused(config, *opts)


def test_masks_that_the_teacher_does_not_give_are_refused(tmp_path):
    config = pool.prepare(tmp_path, tiny.R_CNN, MASKED)
    words = refused(config)
    assert "MODEL.MASK_ON must be False where the teacher that labels gives no segm" in words
