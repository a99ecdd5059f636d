"""COCO-format files, random and mutated: each is loaded, or refused with one sentence."""

import json
import math

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import (
    annotations_to_instances,
    transform_instance_annotations,
)
from detectron2.data.transforms import TransformList
from detectron2.structures import BoxMode
from hypothesis import strategies as st

from reviewkd_det.d2.data import check_evaluable, load_coco_format, register_coco_format
from tests.bulk.mutations import changed, damaged, names, values
from tests.bulk.outcomes import counts, in_bulk, outcome
from tests.d2.data.test_coco_format import VALID

NAME = "test_bulk_coco"
TEXT = json.dumps(VALID)
DRAWN_PIXELS = 10**6  # masks of larger pictures are not decoded here
ids = st.integers(1, 3) | st.integers(-2, 9)
sides = st.integers(1, 9)
numbers = st.integers(-5, 20) | st.floats(-5, 20)
images = st.fixed_dictionaries(
    {"id": ids, "file_name": st.sampled_from(["a.png", "b.png"]), "height": sides, "width": sides}
)
annotations = st.fixed_dictionaries(
    {
        "id": ids,
        "image_id": ids,
        "category_id": ids,
        "bbox": st.lists(numbers, min_size=3, max_size=5),
    },
    optional={
        "area": numbers,
        "iscrowd": st.integers(0, 2),
        "segmentation": st.lists(st.lists(numbers, max_size=9), max_size=3)
        | st.fixed_dictionaries(
            {"size": st.lists(sides, min_size=2, max_size=2), "counts": st.lists(sides) | names}
        ),
        "keypoints": st.lists(numbers, max_size=7),
    },
)
categories = st.fixed_dictionaries({"id": ids, "name": names})
files = st.fixed_dictionaries(
    {
        "images": st.lists(images, max_size=3, unique_by=lambda x: x["id"]),
        "annotations": st.lists(annotations, max_size=3, unique_by=lambda x: x["id"]),
        "categories": st.lists(categories, max_size=3, unique_by=lambda x: x["id"]),
    }
)
sections = st.fixed_dictionaries({key: st.lists(values, max_size=3) | values for key in VALID})


def as_json(content):
    return json.dumps(content).encode()


KINDS = {
    "mutated": changed(VALID).map(as_json),
    "drawn": files.map(as_json),
    "random": values.map(as_json) | sections.map(as_json) | st.binary(max_size=200),
    "damaged": damaged(TEXT.encode()),
}


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    yield tmp_path
    forget()


def forget():
    for catalog in (DatasetCatalog, MetadataCatalog):
        catalog.pop(NAME, None)


def check_records(records, classes):
    """What was accepted is what Detectron2's mapper takes."""
    for record in records:
        assert type(record["file_name"]) is str
        assert all(type(record[key]) is int for key in ("height", "width", "image_id"))
        assert min(record["height"], record["width"]) > 0
        for instance in record["annotations"]:
            assert len(instance["bbox"]) == 4
            assert all(math.isfinite(x) for x in instance["bbox"])
            assert instance["bbox_mode"] is BoxMode.XYWH_ABS
            assert instance["category_id"] in range(classes)
        check_mapped(record)


def check_mapped(record):
    """The objects become boxes, classes and masks of the picture's size."""
    size = record["height"], record["width"]
    objects = [x for x in record["annotations"] if x.get("segmentation")]
    if size[0] * size[1] > DRAWN_PIXELS or any(
        type(x["segmentation"]) is dict and type(x["segmentation"]["counts"]) is str
        for x in objects  # compressed by others: only pycocotools can tell whether they fit
    ):
        objects = []
    for keys, chosen in (({"segmentation"}, record["annotations"]), (set(), objects)):
        mapped = [
            transform_instance_annotations(
                {k: v for k, v in x.items() if k not in {*keys, "keypoints"}},
                TransformList([]),
                size,
            )
            for x in chosen
        ]
        instances = annotations_to_instances(mapped, size, mask_format="bitmask")
        assert len(instances) == len(chosen)
        assert instances.image_size == size


@pytest.mark.parametrize("kind", KINDS)
@counts(full=2000)
def test_a_file_is_loaded_or_refused(folder, kind, count):
    path = folder / "data.json"

    def judge(content):
        path.write_bytes(content)
        forget()

        def load():
            records = load_coco_format(str(path), str(folder), NAME)
            loaded.append((records, len(MetadataCatalog.get(NAME).thing_classes)))

        loaded = []
        result = outcome(load, folder)
        if result == "accepted":
            check_records(*loaded[0])  # not inside: it is no sentence's business
            forget()
            register_coco_format(NAME, str(path), str(folder))
            evaluable = outcome(lambda: check_evaluable(NAME, with_masks=True), folder)
            return f"{result}, evaluation {evaluable}"
        return result

    outcomes = in_bulk(count, KINDS[kind], judge)
    assert outcomes["refused"] > count // 20


def test_the_valid_file_is_loaded(folder):
    (folder / "data.json").write_text(TEXT)
    records = load_coco_format(str(folder / "data.json"), str(folder), NAME)
    check_records(records, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "must be JSON of usual sizes; got maximum recursion depth exceeded"),
        ('{"images": ' + "1" * 5000 + "}", r"must be JSON of usual sizes; got Exceeds the limit"),
        (
            TEXT.replace('"size": [5, 6]', '"size": [5.0, 6]'),
            r"'segmentation' of annotation 2 .* size \[height, width\] = \[5, 6\]; got \[5\.0, 6\]",
        ),
        (
            TEXT.replace('"height": 5', '"height": 65536'),
            "'height' of image 4 .* a positive integer up to 65535; got 65536",
        ),
    ],
    ids=["nested", "digits", "float size", "side"],
)
def test_what_readers_stumble_over_is_named(folder, text, words):
    (folder / "data.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        load_coco_format(str(folder / "data.json"), str(folder), NAME)
