import copy
import json
import logging
import os
import re

import pycocotools.mask as mask_util
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, BoxMode, Instances
from torch import tensor

from reviewkd_det.d2.data import (
    check_evaluable,
    load_coco_format,
    register_coco_format,
    use_for_builtin_coco,
)

# Image 4 is 6 wide and 5 high and has objects 1 and 2, image 7 is 4 wide and 8 high and has none.
VALID = {
    "images": [
        {"id": 7, "file_name": "b.png", "height": 8, "width": 4},
        {"id": 4, "file_name": "a.png", "height": 5, "width": 6},
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 4,
            "category_id": 30,
            "bbox": [1, 2, 3.5, 2],
            "area": 7,
            "iscrowd": 0,
            "segmentation": [[1, 2, 4.5, 2, 4.5, 4, 1, 4]],
            "keypoints": [1, 2, 2, 0, 0, 0],
        },
        {
            "id": 2,
            "image_id": 4,
            "category_id": 20,
            "bbox": [0, 0, 2, 5],
            "area": 10,
            "iscrowd": 1,
            "segmentation": {"size": [5, 6], "counts": [0, 10, 20]},
        },
    ],
    "categories": [{"id": 30, "name": "cat"}, {"id": 20, "name": "dog"}],
}


@pytest.fixture
def name():
    yield "test_coco_format"
    for catalog in (DatasetCatalog, MetadataCatalog):
        catalog.pop("test_coco_format", None)


@pytest.fixture
def write(tmp_path):
    for file_name in ("a.png", "b.png"):
        (tmp_path / file_name).touch()

    def write_json(content):
        path = tmp_path / "data.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    return write_json


@pytest.fixture
def load(write, tmp_path, name):
    return lambda content, **options: load_coco_format(
        write(content), str(tmp_path), name, **options
    )


def changed(section, position, **values):
    """The valid file with values of one entry replaced, or removed where they are `...`."""
    content = copy.deepcopy(VALID)
    entry = content[section][position]
    entry.update(values)
    for key in [key for key, value in entry.items() if value is ...]:
        del entry[key]
    return content


def test_images_are_sorted_and_keep_their_objects(load, tmp_path):
    first, second = load(VALID)
    assert first["file_name"] == os.path.join(tmp_path, "a.png")
    assert (first["image_id"], first["height"], first["width"]) == (4, 5, 6)
    assert second["image_id"] == 7
    assert second["annotations"] == []
    assert [instance["bbox"] for instance in first["annotations"]] == [[1, 2, 3.5, 2], [0, 0, 2, 5]]
    assert all(instance["bbox_mode"] == BoxMode.XYWH_ABS for instance in first["annotations"])
    assert [instance["iscrowd"] for instance in first["annotations"]] == [0, 1]


def test_categories_are_counted_from_0_in_ascending_order(load, name):
    records = load(VALID)
    assert [instance["category_id"] for instance in records[0]["annotations"]] == [1, 0]
    assert MetadataCatalog.get(name).thing_classes == ["dog", "cat"]
    assert MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id == {20: 0, 30: 1}


def test_keypoints_move_to_pixel_centres_and_keep_their_visibility(load):
    assert load(VALID)[0]["annotations"][0]["keypoints"] == [1.5, 2.5, 2, 0.5, 0.5, 0]


def test_uncompressed_run_lengths_are_compressed_to_the_same_mask(load):
    mask = mask_util.decode(load(VALID)[0]["annotations"][1]["segmentation"])
    assert mask.tolist() == [[1, 1, 0, 0, 0, 0]] * 5  # 10 pixels, column by column


def test_compressed_run_lengths_are_kept(load):
    rle = mask_util.frPyObjects({"size": [5, 6], "counts": [0, 10, 20]}, 5, 6)
    segmentation = {"size": [5, 6], "counts": rle["counts"].decode()}
    records = load(changed("annotations", 1, segmentation=segmentation))
    assert records[0]["annotations"][1]["segmentation"] == segmentation


def test_short_polygons_are_left_out_and_an_object_with_no_other_keeps_its_box(load, caplog):
    long = [1, 2, 4, 2, 4, 4]
    content = changed("annotations", 0, segmentation=[[1, 2, 3, 4], long])
    assert load(content)[0]["annotations"][0]["segmentation"] == [long]
    for degenerate in ([[]], [[1, 2, 3, 4]], [[1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7]]):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            instance = load(changed("annotations", 0, segmentation=degenerate))[0]["annotations"][0]
        assert instance["bbox"] == [1, 2, 3.5, 2]
        assert "segmentation" not in instance
        assert "1 kept their box without their segmentation" in caplog.text


def test_a_malformed_mask_is_dropped_where_no_mask_is_needed(load):
    for malformed in ([1, 2, 3, 4], "none", {"counts": [30]}, [[1, 2, None]]):
        content = changed("annotations", 0, segmentation=malformed)
        with pytest.raises(ValueError, match="'segmentation' of annotation 1"):
            load(content)
        instance = load(content, needs_masks=False)[0]["annotations"][0]
        assert "segmentation" not in instance


def test_an_ignored_object_becomes_a_crowd(load, caplog):
    with caplog.at_level(logging.WARNING):
        instances = load(changed("annotations", 0, ignore=1))[0]["annotations"]
    assert [instance["iscrowd"] for instance in instances] == [1, 1]
    assert '1 became crowds because of "ignore": 1' in caplog.text


def test_objects_without_segmentation_are_kept(load):
    for value in (..., [], None):
        instance = load(changed("annotations", 0, segmentation=value))[0]["annotations"][0]
        assert "segmentation" not in instance


def test_one_line_counts_what_was_loaded(load, caplog):
    content = changed("annotations", 0, bbox=[4, 2, 3, 0])
    with caplog.at_level(logging.INFO):
        load(content)
    (line,) = [record.message for record in caplog.records if "coco_format" in record.name]
    assert "2 images, 2 objects (1 crowds, 1 boxes without area, 1 over the border)" in line


def test_a_test_split_needs_no_annotations(load):
    content = {key: VALID[key] for key in ("images", "categories")}
    assert [record["annotations"] for record in load(content, needs_annotations=False)] == [[], []]


@pytest.mark.parametrize(
    "content",
    [VALID, changed("annotations", 0, category_id=99), {**VALID, "categories": []}],
)
def test_objects_that_are_not_needed_are_not_read(load, content):
    assert [record["annotations"] for record in load(content, needs_annotations=False)] == [[], []]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{\n  nonsense", r"data\.json' must be JSON; got .* at line 2, column 3"),
        ([], "top level of .* must be an object; got a list"),
        ({"images": [], "info": {}}, "must have the section 'annotations'; got images, info"),
        ({**VALID, "categories": {}}, "section 'categories' of .* must be a list; got a dict"),
        ({**VALID, "images": []}, "section 'images' of .* must have an entry; got none"),
        (
            {**VALID, "categories": [], "annotations": []},
            "section 'categories' of .* must have an entry; got none",
        ),
        ({**VALID, "images": [3]}, "entry 0 of section 'images' of .* must be an object; got 3"),
        (changed("images", 1, height=...), "entry 1 .* must have 'height'; got id, file_name"),
        (changed("images", 0, id="7"), "'id' of entry 0 .* must be an integer; got '7'"),
        (changed("images", 0, id=4), "'images' of .* must be unique in its section; got 4 again"),
        (changed("annotations", 0, id=2), "'annotations' .* must be unique .*; got 2 again"),
        (changed("categories", 0, id=20), "'categories' .* must be unique .*; got 20 again"),
        (changed("images", 0, file_name=""), "'file_name' of image 7 .* non-empty string; got ''"),
        (changed("images", 0, width=0), "'width' of image 7 .* integer up to 65535; got 0"),
        (changed("images", 0, height=8.0), r"'height' of image 7 .* integer up to 65535; got 8\.0"),
        (changed("images", 0, height=True), "'height' of image 7 .* integer up to 65535; got True"),
        (changed("categories", 0, name=5), "'name' of category 30 .* non-empty string; got 5"),
        (
            changed("annotations", 0, image_id=6),
            "'image_id' of annotation 1 .* one of the 2 images .*; got 6; the nearest are 7, 4",
        ),
        (
            changed("annotations", 1, category_id="cat"),
            "'category_id' of annotation 2 .* one of the 2 categories .*; got 'cat'; the nearest",
        ),
    ],
)
def test_a_broken_structure_is_named(load, content, message):
    with pytest.raises(ValueError, match=message):
        load(content)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("bbox", [1, 2, 3], r"4 finite numbers \[x, y, width, height\]; got \[1, 2, 3\]"),
        ("bbox", [1, 2, True, 3], r"4 finite numbers .*; got \[1, 2, True, 3\]"),
        ("bbox", [1, 2, "3", 3], r"4 finite numbers .*; got \[1, 2, '3', 3\]"),
        ("bbox", [1, 2, float("nan"), 3], r"4 finite numbers .*; got \[1, 2, nan, 3\]"),
        ("bbox", [float("inf"), 2, 3, 3], r"4 finite numbers .*; got \[inf, 2, 3, 3\]"),
        ("bbox", [10**400, 2.5, 3, 3], "4 finite numbers .*; got"),
        ("bbox", None, "4 finite numbers .*; got None"),
        ("bbox", [1, 2, -3, 3], r"the last two not negative; got \[1, 2, -3, 3\]"),
        ("iscrowd", 2, "0 or 1; got 2"),
        ("ignore", 2, "0 or 1; got 2"),
        ("segmentation", [[1, 2, "3"]], r"a list of polygons, .*; got \[1, 2, '3'\]"),
        ("segmentation", [1, 2, 3, 4, 5, 6], "a list of polygons, .*; got 1"),
        ("segmentation", [[1, 1, 9, 1, 9, -1e7]], r"numbers up to 65535; got \[1, 1, 9, 1, 9, -1"),
        ("segmentation", [[float("nan")] * 6], r"a list of polygons, .*; got \[nan, nan"),
        ("segmentation", {"counts": [30]}, "polygons or an object with 'size' and 'counts'; got"),
        (
            "segmentation",
            {"size": [6, 5], "counts": [30]},
            r"size \[height, width\] = \[5, 6\]; got \[6, 5\]",
        ),
        ("segmentation", {"size": [5, 6], "counts": [9, 9]}, r"add up to 30; got \[9, 9\]"),
        ("segmentation", {"size": [5, 6], "counts": [31, -1]}, r"integers of 0 or more .*\[31, -1"),
        ("segmentation", {"size": [5, 6], "counts": "0~"}, "pycocotools compresses them; got '0~'"),
        ("segmentation", {"size": [5, 6], "counts": "0P"}, "pycocotools compresses them; got '0P'"),
        ("keypoints", [1, 2], r"finite numbers in triples .*; got \[1, 2\]"),
        ("keypoints", [1, 2, None], r"finite numbers in triples .*; got \[1, 2, None\]"),
    ],
)
def test_a_broken_value_is_named_with_its_annotation(load, key, value, message):
    with pytest.raises(ValueError, match=rf"'{key}' of annotation 1 in '.*data.json' .*{message}"):
        load(changed("annotations", 0, **{key: value}))


def test_nan_is_refused_only_where_the_number_is_used(load):
    assert len(load(changed("annotations", 0, score=float("nan")))) == 2


def test_a_missing_json_file_is_named(tmp_path, name):
    path = str(tmp_path / "absent.json")
    with pytest.raises(FileNotFoundError, match=f"must exist; got '{re.escape(path)}'"):
        load_coco_format(path, str(tmp_path), name)


def test_missing_images_are_counted_and_the_first_is_named(write, tmp_path, name):
    json_file = write(VALID)
    (tmp_path / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"got 1 of 2 missing, the first is '.*b\.png'"):
        load_coco_format(json_file, str(tmp_path), name)


def test_classes_other_than_the_known_ones_are_refused(load, name):
    MetadataCatalog.get(name).thing_classes = ["dog", "bird"]
    with pytest.raises(ValueError, match="got 'cat' in place 1 instead of 'bird'"):
        load(VALID)


def test_a_registered_name_loads_its_file(write, tmp_path, name):
    json_file = write(VALID)
    for _ in range(2):  # the second time does nothing
        register_coco_format(name, json_file, str(tmp_path))
    assert len(DatasetCatalog.get(name)) == 2
    metadata = MetadataCatalog.get(name)
    assert (metadata.json_file, metadata.image_root) == (json_file, str(tmp_path))
    assert metadata.evaluator_type == "coco"


def test_a_registered_name_keeps_its_paths(name):
    register_coco_format(name, "one.json", "one")
    with pytest.raises(ValueError, match=r"\('one.json', 'one'\); got \('two.json', 'one'\)"):
        register_coco_format(name, "two.json", "one")


def test_names_of_detectron2_are_refused():
    with pytest.raises(ValueError, match="must be new; got 'coco_2017_val', which Detectron2 has"):
        register_coco_format("coco_2017_val", "one.json", "one")


@pytest.fixture
def builtin(monkeypatch):
    """Detectron2's own names, for one test, as a command reads them."""
    monkeypatch.setattr(DatasetCatalog, "data", dict(DatasetCatalog.data))
    use_for_builtin_coco()


@pytest.mark.usefixtures("builtin")
def test_builtin_names_load_the_file_detectron2_gives_them(write, tmp_path, monkeypatch):
    content = {"images": VALID["images"], "categories": []}
    metadata = MetadataCatalog.get("coco_2017_test")
    known_ids = metadata.thing_dataset_id_to_contiguous_id
    for name, category_id in zip(metadata.thing_classes, known_ids, strict=True):
        content["categories"].append({"id": category_id, "name": name})
    monkeypatch.setitem(metadata.__dict__, "json_file", write(content))
    monkeypatch.setitem(metadata.__dict__, "image_root", str(tmp_path))
    assert [record["image_id"] for record in DatasetCatalog.get("coco_2017_test")] == [4, 7]
    assert len(metadata.thing_colors) == 80


@pytest.mark.usefixtures("builtin")
def test_a_missing_builtin_file_says_where_it_is_looked_for(monkeypatch):
    metadata = MetadataCatalog.get("keypoints_coco_2017_val")
    monkeypatch.setitem(metadata.__dict__, "json_file", "nowhere/coco/val.json")
    message = "'nowhere/coco/val.json'; set DETECTRON2_DATASETS, now"
    with pytest.raises(FileNotFoundError, match=message):
        DatasetCatalog.get("keypoints_coco_2017_val")


def evaluate(name, image_id=4):
    """COCO's AP of one perfect prediction of object 1."""
    evaluator = COCOEvaluator(name, tasks=("bbox",), distributed=False)
    found = Instances((5, 6))
    found.pred_boxes = Boxes(tensor([[1.0, 2.0, 4.5, 4.0]]))
    found.scores, found.pred_classes = tensor([0.9]), tensor([1])
    evaluator.reset()
    evaluator.process([{"image_id": image_id}], [{"instances": found}])
    return evaluator.evaluate()["bbox"]["AP"]


def test_an_evaluable_file_needs_neither_info_nor_licenses(write, tmp_path, name):
    register_coco_format(name, write(VALID), str(tmp_path))
    check_evaluable(name, with_masks=True)
    assert evaluate(name) == pytest.approx(100)


@pytest.mark.parametrize(
    ("values", "with_masks", "message"),
    [
        ({"area": ...}, False, "'area' of annotation 1 .* must be a finite number .* got no such"),
        ({"area": "7"}, False, "'area' of annotation 1 .* must be a finite number .* got '7'"),
        ({"iscrowd": ...}, False, "'iscrowd' of annotation 1 .* must be 0 or 1 .* got no such key"),
        (
            {"segmentation": []},
            True,
            r"'segmentation' of annotation 1 .* must be a mask .* got \[\]",
        ),
        ({"id": 0}, False, "'id' of annotation 0 .* must be 1 or more .* got 0; number the"),
    ],
)
def test_what_breaks_the_evaluation_is_named(write, tmp_path, name, values, with_masks, message):
    register_coco_format(name, write(changed("annotations", 0, **values)), str(tmp_path))
    assert len(DatasetCatalog.get(name)) == 2  # training needs none of it
    with pytest.raises(ValueError, match=message):
        check_evaluable(name, with_masks=with_masks)
    if with_masks:
        check_evaluable(name)


def test_pycocotools_counts_annotation_0_as_missed(write, tmp_path, name):
    register_coco_format(name, write(changed("annotations", 0, id=0)), str(tmp_path))
    DatasetCatalog.get(name)
    assert evaluate(name) == 0  # why check_evaluable refuses it


def test_records_without_a_file_need_ids_to_be_evaluated():
    DatasetCatalog.register("records_without_ids", lambda: [{"file_name": "a.png"}])
    MetadataCatalog.get("records_without_ids").evaluator_type = "coco"
    with pytest.raises(
        ValueError, match="every image of 'records_without_ids' must have an image_id"
    ):
        check_evaluable("records_without_ids")
