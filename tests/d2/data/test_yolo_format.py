"""YOLO data, against boxes worked out by hand."""

import json
import logging

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from reviewkd_det.d2.data import check_evaluable, register_yolo_format
from reviewkd_det.d2.data.data_use import DataUse
from reviewkd_det.d2.data.prepare import prepare_data
from reviewkd_det.d2.data.yolo_format import read_yolo_format

WIDTH, HEIGHT = 40, 20
BOX = "1 0.5 0.5 0.25 0.5"
POLYGON = "0 0.1 0.1 0.6 0.1 0.6 0.6"


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(path)


@pytest.fixture
def yolo(tmp_path):
    """A data.yaml, and train and val images of which one has no label file."""
    for name in ("train/a.png", "train/deep/b.png", "val/c.png"):
        picture(tmp_path / "images" / name)
    for name, text in {"train/a": f"{BOX}\n\n{POLYGON}\n{BOX}\n", "val/c": ""}.items():
        path = tmp_path / "labels" / f"{name}.txt"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    describe(tmp_path)
    return tmp_path


def describe(folder, text="path: .\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n"):
    (folder / "data.yaml").write_text(text)


def label(folder, text):
    (folder / "labels" / "train" / "a.txt").write_text(text)


def read(folder, split="train", **options):
    return read_yolo_format(str(folder / "data.yaml"), split, **options)


def test_boxes_and_polygons_are_in_pixels(yolo):
    content = read(yolo)
    box, polygon = content["annotations"]  # the repeated row is left out
    assert box["bbox"] == [15, 5, 10, 10]
    assert (box["area"], box["category_id"], "segmentation" in box) == (100, 2, False)
    assert polygon["segmentation"] == [pytest.approx([4, 2, 24, 2, 24, 12])]
    assert polygon["bbox"] == pytest.approx([4, 2, 20, 10])
    assert polygon["area"] == pytest.approx(100)  # half of the box
    assert [entry["name"] for entry in content["categories"]] == ["cat", "dog"]
    images = [(x["id"], x["file_name"], x["width"], x["height"]) for x in content["images"]]
    assert images == [
        (1, str(yolo / "images/train/a.png"), WIDTH, HEIGHT),
        (2, str(yolo / "images/train/deep/b.png"), WIDTH, HEIGHT),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "path: {root}\ntrain: [images/train/a.png, images/train/deep]\nnames: {{0: cat, 1: dog}}",
        "train: [./images/train]\nnames: {{'1': dog, '0': cat}}\nnc: 2",
        "train: ../images/train\nnames: [cat, dog]",
        "path: {root}\ntrain: list.txt\nnames: [cat, dog]",
        "path: no/such/folder\ntrain: {root}/images/train\nnames: [cat, dog]",
    ],
)
def test_splits_and_names_may_be_written_in_many_ways(yolo, text):
    expected = read(yolo)
    (yolo / "list.txt").write_text("./images/train/a.png\nimages/train/deep/b.png\n")
    if "a.png, " in text:
        text = text.replace("images/train/a.png", "images/one")
        picture(yolo / "images" / "one" / "a.png")
        (yolo / "labels" / "one").mkdir()
        (yolo / "labels" / "train" / "a.txt").rename(yolo / "labels" / "one" / "a.txt")
    describe(yolo, text.format(root=yolo))
    content = read(yolo)
    assert content["annotations"] == expected["annotations"]
    assert content["categories"] == expected["categories"]


def test_labels_beside_the_images_are_found(tmp_path):
    picture(tmp_path / "images" / "train" / "a.png")
    (tmp_path / "images" / "train" / "a.txt").write_text(BOX)
    describe(tmp_path)
    assert len(read(tmp_path)["annotations"]) == 1


def test_it_is_known_by_its_name_and_can_be_evaluated(yolo, tmp_path):
    name = f"yolo_{tmp_path.name}"
    register_yolo_format(name, str(yolo / "data.yaml"), "train", output_dir=str(tmp_path / "run"))
    check_evaluable(name)
    first, second = DatasetCatalog.get(name)
    assert [len(first["annotations"]), second["annotations"]] == [2, []]
    assert MetadataCatalog.get(name).thing_classes == ["cat", "dog"]


def test_images_alone_need_no_labels(yolo):
    describe(yolo, "train: images/train/deep\nnames: [cat, dog]")
    assert read(yolo, needs_annotations=False)["annotations"] == []
    describe(yolo, "train: images/train")  # no classes either
    content = read(yolo, needs_annotations=False)
    assert (len(content["images"]), content["annotations"], content["categories"]) == (2, [], [])
    describe(yolo, "train: images/train/deep\nnames: [cat, dog]")
    words = r"must have label files; got none for 1 images, the first would be .*labels/train/deep"
    with pytest.raises(FileNotFoundError, match=words):
        read(yolo)


def test_keypoints_of_a_row_are_not_read_and_that_is_said(yolo, caplog):
    describe(yolo, "train: images/train\nnames: [cat, dog]\nkpt_shape: [2, 3]")
    label(yolo, f"{BOX} 0.1 0.1 2 0.2 0.2 2")
    with caplog.at_level(logging.WARNING):
        (box,) = read(yolo)["annotations"]
    assert (box["bbox"], "segmentation" in box) == ([15, 5, 10, 10], False)
    assert "Keypoints of" in caplog.text


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("1 0.5 0.5 0.25", "a.txt', line 2 must be a class and 4 numbers .*; got 3 numbers"),
        ("1 0.5 0.5 0.25 0.5 0.9", "line 2 must be .*; got 5 numbers after the class"),
        ("cat 0.5 0.5 0.25 0.5", "line 2 must be numbers; got 'cat 0.5 0.5 0.25 0.5'"),
        ("2 0.5 0.5 0.25 0.5", "class in .*a.txt', line 2 must be from 0 to 1, .*; got 2"),
        ("0.5 0.5 0.5 0.25 0.5", "class in .*line 2 must be .*; got 0.5"),
        ("1 0.5 0.5 25 0.5", "coordinates in .*line 2 must be parts .*; got 25.0"),
        ("1 0.5 -0.5 0.2 0.5", "coordinates in .*; got -0.5"),
        ("1 0.5 nan 0.2 0.5", "coordinates in .*; got nan"),
    ],
)
def test_a_bad_row_is_named_with_its_line(yolo, row, words):
    label(yolo, f"{BOX}\n{row}\n")
    with pytest.raises(ValueError, match=words):
        read(yolo)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names: [", r"data.yaml' must be plain YAML; got while parsing"),
        ("names: !!python/name:os.system", "must be plain YAML; got could not determine"),
        ("- 1", "must be a YAML mapping; got a list"),
        ("train: images/train", "'names' of .* must list the classes; got None"),
        ("names: {0: cat, 2: dog}", "must count its classes from 0; got 0, 2"),
        ("names: [cat, cat]", "must name each class once; got cat again"),
        ("names: [cat]\nnc: 2", "'nc' of .* must be the number of its names, 1; got 2"),
        ("names: [cat]\nval: x\ntrain:", "must be in .*data.yaml'; got 'train'; it has val"),
        ("names: [cat]\ntrain: no/x", "'train' of .* got 'no/x', and nothing at"),
        ("names: [cat]\ntrain: labels", "must have an image; got none in labels"),
        ("names: [cat]\ntrain: list.txt", "every image of .*list.txt' must be a file; got none at"),
    ],
)
def test_a_bad_description_is_named(yolo, text, words):
    (yolo / "list.txt").write_text("images/no.png")
    describe(yolo, text)
    with pytest.raises((ValueError, KeyError, FileNotFoundError), match=words):
        read(yolo)


def test_a_missing_description_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"DATASETS.YOLO_FORMAT must exist; got '.*data.yaml'"
    ):
        read(tmp_path)


def test_mapped_classes_leave_the_converted_file_as_it_is(yolo, tmp_path):
    describe(yolo / "labels", "path: ..\nval: images/train\nnames: [dog, cat]\n")
    names = [f"{part}_of_{tmp_path.name}" for part in ("train", "val")]
    for name, file, split in zip(names, (yolo, yolo / "labels"), ("train", "val"), strict=True):
        output = str(tmp_path / "run")
        register_yolo_format(name, str(file / "data.yaml"), split, output_dir=output)
    use = DataUse(names[:1], names[1:], (), str(tmp_path / "run"), map_classes=True)
    assert prepare_data(use) == ["cat", "dog"]
    (first, _) = DatasetCatalog.get(names[1])
    assert [x["category_id"] for x in first["annotations"]] == [0, 1]
    # Another process may convert the data while the first maps it.
    content = json.loads((tmp_path / "run" / "data" / f"{names[1]}.json").read_text())
    assert [entry["name"] for entry in content["categories"]] == ["dog", "cat"]
    assert (yolo / "data.yaml.checked").is_file()  # beside the data, for every run
