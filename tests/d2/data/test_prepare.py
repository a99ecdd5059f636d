"""A run's data as a whole: classes, images, objects, names, before anything is built."""

import json
import logging
import os
from contextlib import nullcontext

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image

from reviewkd_det.d2.data import check_evaluable, register_coco_format, register_image_folder
from reviewkd_det.d2.data.data_use import DataUse
from reviewkd_det.d2.data.prepare import prepare_data
from tests.d2 import scenes


@pytest.fixture
def names(tmp_path):
    """The names `train` and `val`, each with a copy of the scenes below the test's folder."""
    known = {}
    for part in ("train", "val"):
        json_file, images = scenes.write_scenes(tmp_path / part)
        known[part] = f"{part}_of_{tmp_path.name}"
        register_coco_format(known[part], json_file, images)
    yield known
    for name in known.values():
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)


@pytest.fixture
def use(names, tmp_path):
    def build(**values):
        given = {"train": [names["train"]], "test": [names["val"]], "unlabeled": []} | values
        return DataUse(folder=str(tmp_path / "run"), **given)

    return build


def change(folder, edit):
    """Edit the JSON file of a part."""
    path = folder / "scenes.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def rename(*classes, ids=None):
    """An edit that keeps the objects' ids and gives them these classes."""

    def edit(content):
        numbers = ids or range(1, len(classes) + 1)
        content["categories"] = [
            {"id": number, "name": name} for number, name in zip(numbers, classes, strict=True)
        ]

    return edit


def truth_as_predictions(name, folder):
    """COCO's AP of a data set's own objects as the run sees them, by class."""
    evaluator = COCOEvaluator(name, tasks=("bbox",), distributed=False, output_dir=str(folder))
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        found = Instances((record["height"], record["width"]))
        objects = [x for x in record["annotations"] if not x["iscrowd"]]
        boxes = [BoxMode.convert(x["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS) for x in objects]
        found.pred_boxes = Boxes(torch.tensor(boxes).float().reshape(-1, 4))
        found.pred_classes = torch.tensor([x["category_id"] for x in objects])
        found.scores = torch.full((len(objects),), 0.9)
        evaluator.process([{"image_id": record["image_id"]}], [{"instances": found}])
    return evaluator.evaluate()["bbox"]


def test_equal_lists_under_other_ids_need_no_map(names, use, tmp_path):
    def shift(content):
        for category in content["categories"]:
            category["id"] += 10
        for annotation in content["annotations"]:
            annotation["category_id"] += 10

    change(tmp_path / "val", shift)
    assert prepare_data(use()) == ["class 0", "class 1", "class 2"]
    assert truth_as_predictions(names["val"], tmp_path)["AP"] == pytest.approx(100)


@pytest.mark.parametrize("train", [("class 1", "class 0", "class 2"), ("Class 0", "b", "c")])
def test_lists_that_differ_are_refused_with_both(use, tmp_path, train):
    change(tmp_path / "train", rename(*train))
    with pytest.raises(ValueError, match=r"got \['class 0', .*\] instead of \['.*MAP_CLASSES"):
        prepare_data(use())


def test_classes_are_mapped_by_name_and_evaluated_as_they_are(names, use, tmp_path):
    # The training's order is 2, 0, 1; of a test file's further classes one has no objects.
    change(tmp_path / "train", rename("class 2", "class 0", "class 1"))
    change(tmp_path / "val", lambda x: x["categories"].append({"id": 9, "name": "unused"}))
    before = {x["image_id"]: x["annotations"] for x in DatasetCatalog.get(names["val"])}
    assert prepare_data(use(map_classes=True)) == ["class 2", "class 0", "class 1"]
    check_evaluable(names["val"])
    for record in DatasetCatalog.get(names["val"]):
        numbers = [x["category_id"] for x in record["annotations"]]
        assert numbers == [(x["category_id"] + 1) % 3 for x in before[record["image_id"]]]
    results = truth_as_predictions(names["val"], tmp_path)
    assert results["AP"] == pytest.approx(100)
    assert list(results)[-3:] == ["AP-class 2", "AP-class 0", "AP-class 1"]
    register_coco_format(names["val"], tmp_path / "val" / "scenes.json", tmp_path / "val/images")
    assert len(MetadataCatalog.get(names["val"]).thing_classes) == 4  # its own again


def test_a_test_file_may_have_a_part_of_the_classes_once_mapped(names, use, tmp_path):
    def keep_one(content):
        content["categories"] = [{"id": 3, "name": "class 2"}]
        content["annotations"] = [x for x in content["annotations"] if x["category_id"] == 3]

    change(tmp_path / "val", keep_one)
    prepare_data(use(map_classes=True))
    results = truth_as_predictions(names["val"], tmp_path)
    assert results["AP"] == results["AP-class 2"] == pytest.approx(100)


def test_an_object_of_a_class_that_is_not_trained_is_refused(use, tmp_path):
    change(tmp_path / "val", rename("class 0", "class 1", "bird"))
    with pytest.raises(ValueError, match=r"every class of 'val.*missing: 'bird'"):
        prepare_data(use(map_classes=True))


def test_the_classes_of_the_run_or_weights_come_first(use, tmp_path):
    known = ["class 1", "class 0", "class 2"]
    given = {"known_classes": known, "known_whose": "the run in 'x'"}
    with pytest.raises(ValueError, match=r"'train.* must be those of the run in 'x'"):
        prepare_data(use(**given))
    assert prepare_data(use(map_classes=True, **given)) == known


def test_ignored_objects_are_crowds_for_the_evaluation_too(names, use, tmp_path):
    change(tmp_path / "val", lambda x: x["annotations"][0].update(ignore=1))
    prepare_data(use())
    assert truth_as_predictions(names["val"], tmp_path)["AP"] == pytest.approx(100)


def cut(path):
    path.write_bytes(path.read_bytes()[:300])


def shrink(path):
    with Image.open(path) as image:
        image.resize((30, 20)).save(path)


def test_all_bad_images_of_a_run_are_in_one_sentence(use, tmp_path):
    pool = tmp_path / "pool"
    pool.mkdir()
    Image.new("RGB", (40, 30)).save(pool / "fine.png")
    Image.effect_noise((40, 30), 50).save(pool / "cut.png")
    cut(pool / "cut.png")
    register_image_folder(f"pool_of_{tmp_path.name}", pool)
    cut(tmp_path / "train" / "images" / "1.png")
    shrink(tmp_path / "val" / "images" / "2.png")
    given = {"unlabeled": [f"pool_of_{tmp_path.name}"]}
    words = (
        r"got 3 of 10 .*train/images/1.png' \(OSError.*val/images/2.png' \(.* size 64x64; got 30x2"
    )
    with pytest.raises(ValueError, match=words):
        prepare_data(use(**given))
    with pytest.raises(ValueError, match="got 1 of 10"):  # headers show the size alone
        prepare_data(use(check="files", **given))
    assert prepare_data(use(check="none", **given))
    assert (tmp_path / "train" / "scenes.json.checked").is_file()
    with pytest.raises(ValueError, match="CHECK must be one of full, files, none; got 'all'"):
        use(check="all")


def test_an_image_that_resizing_leaves_nothing_of_is_refused(use, tmp_path):
    Image.new("RGB", (400, 2)).save(tmp_path / "val" / "images" / "0.png")
    change(tmp_path / "val", lambda x: x["images"][0].update(width=400, height=2))
    sizes = {"test_resizes": [ResizeShortestEdge(800, 1333)]}
    prepare_data(use(**sizes))
    sizes = {"test_resizes": [ResizeShortestEdge(64, 96)]}
    with pytest.raises(ValueError, match=r"0.png' \(400x2 pixels, .* at most 96 leaves 96x0"):
        prepare_data(use(**sizes))


@pytest.mark.parametrize(
    ("mask", "given", "words"),
    [
        (None, {}, ""),
        (None, {"masks": True}, "must have a mask .* MODEL.MASK_ON True; got 2 of 8 .*0.png' at"),
        ([[1, 2, 3, 4]], {"masks": True}, "must have a mask .* got 2 of 8"),
        (
            {"size": [64, 96], "counts": [0, 64 * 96]},
            {"masks": True},
            "MASK_FORMAT must be 'bitmask' .* got 2 of 8",
        ),
        (
            {"size": [64, 96], "counts": [0, 64 * 96]},
            {"masks": True, "mask_format": "bitmask"},
            "",
        ),
        (None, {"keypoints": True}, "must have keypoints .*; got 8 of 8 .* set MODEL.KEYPOINT_ON"),
    ],
)
def test_objects_without_what_is_trained_are_counted(use, tmp_path, mask, given, words):
    def edit(content):
        for annotation in content["annotations"][:2]:
            annotation["segmentation"] = mask

    change(tmp_path / "train", edit)
    with pytest.raises(ValueError, match=words) if words else nullcontext():
        prepare_data(use(**given))


def test_odd_boxes_and_shared_images_are_warned_of(names, use, tmp_path, caplog):
    def edit(content):
        for annotation in content["annotations"]:
            annotation["bbox"] = [x / 100 for x in annotation["bbox"]]

    change(tmp_path / "train", edit)
    with caplog.at_level(logging.WARNING):
        prepare_data(use(test=[names["val"], names["train"]]))
    assert "8 of 8 boxes lie in 0 to 1" in caplog.text
    assert f"'{names['train']}' is trained and tested on" in caplog.text
    twin = f"twin_of_{tmp_path.name}"
    register_coco_format(twin, tmp_path / "train" / "scenes.json", tmp_path / "train" / "images")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        prepare_data(use(test=[twin]))
    assert f"4 images of '{names['train']}' and '{twin}' are the same" in caplog.text


def test_a_file_under_two_names_is_refused(names, use, tmp_path):
    for number, name in enumerate(("link.json", "copy.json")):
        path, twin = tmp_path / "train" / name, f"{name}_of_{tmp_path.name}"
        source = tmp_path / "train" / "scenes.json"
        path.write_bytes(source.read_bytes()) if number else os.symlink(source, path)
        register_coco_format(twin, path, tmp_path / "train" / "images")
        with pytest.raises(ValueError, match=f"TRAIN must name a file once; got 'train.*'{name}"):
            prepare_data(use(train=[names["train"], twin]))


@pytest.mark.parametrize("part", ["train", "test", "calibration"])
def test_a_folder_of_images_has_no_labels(use, tmp_path, part):
    name = f"folder_{part}_of_{tmp_path.name}"
    register_image_folder(name, tmp_path / "train" / "images")
    words = f"{part.upper()} must name data sets with labels; got '{name}', a folder"
    with pytest.raises(ValueError, match=words):
        prepare_data(use(**{part: [name]}))


def test_a_name_is_there_once(names, use):
    for part in ("train", "test", "unlabeled"):
        with pytest.raises(ValueError, match=f"{part.upper()} must name a data set once; got '"):
            prepare_data(use(**{part: [names["train"], names["train"]]}))
    words = "TEST and MODEL.*CALIBRATION must name a data set once"
    with pytest.raises(ValueError, match=words):
        prepare_data(use(calibration=[names["val"]]))


def test_test_images_that_are_used_otherwise_are_warned_of(names, use, tmp_path, caplog):
    links = tmp_path / "links"
    links.mkdir()
    for path in (tmp_path / "val" / "images").iterdir():
        (links / path.name).symlink_to(path)
    pool, again = f"links_of_{tmp_path.name}", f"again_of_{tmp_path.name}"
    register_image_folder(pool, links)
    register_image_folder(again, tmp_path / "val" / "images")
    with caplog.at_level(logging.WARNING):
        prepare_data(use(unlabeled=[pool, again]))
    words = f"4 images of '{pool}' and '{again}' are the same, trained on without labels in two"
    assert words in caplog.text
    assert f"4 images of '{pool}' and '{names['val']}' are the same, trained on" in caplog.text
    # The scenes of both parts are the same by their JSON files, in other folders.
    assert f"'{names['train']}' and '{names['val']}' have equal annotation files" in caplog.text
    change(tmp_path / "val", lambda x: x.update(note=""))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        prepare_data(use())
    assert caplog.text == ""


@pytest.mark.parametrize("crowd", ["iscrowd", "ignore"])
def test_crowds_alone_are_no_objects(names, use, tmp_path, caplog, crowd):
    def edit(content):
        for annotation in content["annotations"]:
            annotation[crowd] = 1

    change(tmp_path / "val", edit)
    with caplog.at_level(logging.WARNING):
        prepare_data(use())
    assert f"'{names['val']}' has 4 images and no object to find" in caplog.text
    with pytest.raises(ValueError, match=r"CALIBRATION must have labelled objects.* but 8 crowds"):
        prepare_data(use(test=[], calibration=[names["val"]]))
    change(tmp_path / "train", edit)
    with pytest.raises(ValueError, match=r"TRAIN must have labelled objects; .* but 8 crowds"):
        prepare_data(use())


def test_calibration_has_the_classes_of_the_run(names, use, tmp_path):
    change(tmp_path / "val", rename("class 1", "class 0", "class 2"))
    given = {"test": [], "calibration": [names["val"]]}
    with pytest.raises(ValueError, match=f"classes of '{names['val']}' must be those of"):
        prepare_data(use(**given))
    prepare_data(use(map_classes=True, **given))
    assert MetadataCatalog.get(names["val"]).thing_classes == ["class 0", "class 1", "class 2"]


def test_masks_in_other_units_are_warned_of(names, use, tmp_path, caplog):
    def edit(content):
        for annotation in content["annotations"]:
            x, y, w, h = (value / 100 for value in annotation["bbox"])
            annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h]]

    change(tmp_path / "train", edit)
    with caplog.at_level(logging.WARNING):
        prepare_data(use())
        assert "Masks" not in caplog.text
        prepare_data(use(masks=True))
    assert f"Masks of '{names['train']}' should lie in their boxes: 8 of 8 do not" in caplog.text
    assert caplog.text.count("Masks") == 1


def test_one_object_with_keypoints_is_enough_unless_all_are_needed(use, tmp_path):
    def edit(content):
        content["annotations"][0]["keypoints"] = [1, 1, 2]

    change(tmp_path / "train", edit)
    assert prepare_data(use(keypoints=True))
    with pytest.raises(ValueError, match=r"must have keypoints .* got 7 of 8"):
        prepare_data(use(keypoints=True, all_keypoints=True))


def test_classes_of_one_name_are_warned_of(use, tmp_path, caplog):
    for part in ("train", "val"):
        change(tmp_path / part, rename("a", "b", "a"))
    with caplog.at_level(logging.WARNING):
        prepare_data(use())
    assert "has several classes of the same name" in caplog.text


def test_training_without_any_object_is_refused(use, tmp_path):
    change(tmp_path / "train", lambda x: x.update(annotations=[]))
    with pytest.raises(ValueError, match=r"TRAIN must have labelled objects; .* 4 images and no"):
        prepare_data(use())
