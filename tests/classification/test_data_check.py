"""A classifier's image files and classes, looked at before its run."""

import argparse
import json
import os

import pytest
from PIL import Image

from classification.data.check import check_source
from classification.data.sources import load_source
from classification.runs.start import evaluate_main
from reviewkd_det.common.runs.record import RECORD, saved_classes
from tests.classification.running import here, train


@pytest.fixture
def root(tmp_path):
    """A folder of images of two classes; those of one split are behind a link."""
    for split, count in (("elsewhere", 3), ("val", 2)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(count):
                image = Image.effect_noise((40, 30), 50)
                image.save(tmp_path / split / name / f"{index}.jpg")
    (tmp_path / "train").mkdir()
    for name in ("cat", "dog"):
        os.symlink(tmp_path / "elsewhere" / name, tmp_path / "train" / name)
        os.symlink(tmp_path / "elsewhere" / name, tmp_path / "elsewhere" / name / "back")
    return tmp_path


def check(root, level="full"):
    check_source(load_source("image_folder", str(root)), str(root), level)


def test_linked_folders_are_followed_and_circles_give_nothing_twice(root):
    source = load_source("image_folder", str(root))
    names = [os.path.relpath(path, root / "train") for path in source.train.images]
    assert names == [f"{kind}/{index}.jpg" for kind in ("cat", "dog") for index in range(3)]
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_damaged_files_are_counted_and_named(root):
    check(root)
    assert len(json.loads((root / ".checked").read_text())) == 10
    (root / "val" / "cat" / "1.jpg").write_text("hello")
    whole = (root / "val" / "dog" / "0.jpg").read_bytes()
    (root / "val" / "dog" / "0.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"got 2 of .*cat/1.jpg' \(not an image\), .*dog/0.jpg"):
        check(root)
    with pytest.raises(ValueError, match=r"got 1 of .*cat/1.jpg' \(not an image\)"):
        check(root, "files")
    check(root, "none")
    with pytest.raises(ValueError, match=r"DATA.CHECK must be one of full, files, none; got 'all'"):
        check(root, "all")


def test_test_images_that_are_trained_on_are_warned_of(root, caplog):
    check(root)
    assert "training images too" not in caplog.text
    (root / "val" / "dog" / "again.jpg").symlink_to(root / "elsewhere" / "dog" / "0.jpg")
    check(root)
    assert f"1 of the 5 test images of '{root}' are training images too" in caplog.text


def test_a_run_keeps_its_classes_and_teaches_goes_on_and_is_tested_with_no_others(tmp_path):
    teacher = tmp_path / "teacher"
    assert train(teacher, "SOLVER.EPOCHS", 1) == 0
    assert saved_classes(teacher) == [str(digit) for digit in range(10)]
    record = json.loads((teacher / RECORD).read_text())
    (teacher / RECORD).write_text(json.dumps({**record, "classes": list("9123456780")}))
    words = r"classes of the data must be those of the run in '.*teacher' \({}\).* got \['0', "
    with pytest.raises(ValueError, match=words.format("OUTPUT_DIR")):
        train(teacher, "SOLVER.EPOCHS", 2, resume=True)
    taught = ["TEACHER.NAME", "resnet8", "TEACHER.WEIGHTS", teacher / "last.pth"]
    with pytest.raises(ValueError, match=words.format("TEACHER.WEIGHTS")):
        train(tmp_path / "run", *taught, "DISTILL.METHODS", "('KD',)", "SOLVER.EPOCHS", 1)
    tested = argparse.Namespace(
        config_file=teacher / "config.yaml", weights="", json="", opts=["TRACKERS", "()"]
    )
    with pytest.raises(ValueError, match=words.format("--weights")):
        here(evaluate_main, tested)
