"""Classes of student and teacher: the same, refused, or mapped by name."""

import json

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model

from reviewkd_det.common.runs.record import RECORD
from reviewkd_det.core import Need
from reviewkd_det.d2 import load_config
from reviewkd_det.d2.data.yaml_use import data_classes
from reviewkd_det.d2.runs.new_student import inherit_from_yaml
from reviewkd_det.d2.teacher.build import TeacherLoader
from reviewkd_det.d2.teacher.classes import match_classes, reorder_classes, teacher_classes
from tests.d2 import scenes, tiny

TEACHERS = ["b", "unused", "c", "a"]
STUDENTS = ["a", "b", "c"]
ORDER = [3, 0, 2]  # the teacher's number of each of the student's classes
WHOLE = tiny.merged(tiny.R_CNN, {"ROI_HEADS": {"NUM_CLASSES": 4}})


@pytest.fixture
def config(tmp_path):
    """A student's config, whose data is known, beside a teacher in the folder of its run."""
    tiny.save_teacher(tmp_path, WHOLE)
    (tmp_path / RECORD).write_text(json.dumps({"classes": TEACHERS}))
    name = f"classes_of_{tmp_path.name}"
    MetadataCatalog.get(name).set(thing_classes=STUDENTS)
    distill = {"METHODS": ["DKD"], "INHERIT": ["roi_heads"]}
    yield tiny.save_student(tmp_path, tiny.R_CNN, distill, DATASETS={"TRAIN": [name]})
    MetadataCatalog.pop(name)


def load(config, *opts):
    return load_config(config, ["DATASETS.MAP_CLASSES", "True", *opts])


def test_a_teachers_own_data_comes_before_the_students_of_the_same_name(tmp_path):
    name = f"named_{tmp_path.name}"
    MetadataCatalog.get(name).set(thing_classes=STUDENTS)
    DatasetCatalog.register(name, list)
    (tmp_path / "data.yaml").write_text("names: [c, b, a]")
    (tmp_path / "a.xml").write_text("<a><object><name>x</name></object></a>")
    categories = [{"id": 2, "name": "b"}, {"id": 1, "name": "c"}, {"id": 3, "name": "a"}]
    (tmp_path / "a.json").write_text(json.dumps({"images": [], "categories": categories}))
    for key, value, expected in (
        ("YOLO_FORMAT", [name, str(tmp_path / "data.yaml"), "train"], ["c", "b", "a"]),
        ("COCO_FORMAT", [name, str(tmp_path / "a.json"), ""], ["c", "b", "a"]),
        ("COCO_FORMAT", [name, str(tmp_path / "moved.json"), ""], None),
        ("VOC_FORMAT", [name, str(tmp_path), "train"], ["x"]),
        ("COCO_FORMAT", ["another", "", ""], STUDENTS),
    ):
        cfg = load_config(tiny.save_teacher(tmp_path, WHOLE), [f"DATASETS.{key}", str([value])])
        assert data_classes(cfg, name, load=True) == expected
    DatasetCatalog.pop(name)
    MetadataCatalog.pop(name)


def test_rows_of_scores_boxes_and_masks_change_places():
    rows = torch.arange(12.0)[:, None]
    state = {
        "roi_heads.box_predictor.cls_score.bias": rows[:4, 0],  # 3 classes and background
        "roi_heads.box_predictor.bbox_pred.bias": rows[:, 0],  # 4 of each class
        "roi_heads.mask_head.predictor.weight": rows[:3],
        "head.cls_score.bias": rows[:6, 0],  # 2 anchors
        "head.bbox_pred.bias": rows[:, 0],  # of 3 anchors, for any class
        "backbone.fpn.bias": rows[:3, 0],
    }
    told = {name: x.flatten().tolist() for name, x in reorder_classes(state, [2, 0], 3).items()}
    assert list(told.values()) == [
        [2, 0, 3],
        [8, 9, 10, 11, 0, 1, 2, 3],
        [2, 0],
        [2, 0, 5, 3],
        list(range(12)),
        [0, 1, 2],
    ]


def test_logits_are_compared_class_by_class(config):
    heads = TeacherLoader(str(config.parent / "teacher.yaml"))(Need.LOGITS).module.heads.box
    mapped = TeacherLoader.from_config(load(config))(Need.LOGITS).module.heads.box
    levels = {f"p{i}": torch.randn(1, 24, 64 >> i, 96 >> i) for i in range(2, 6)}
    boxes = [x["instances"].gt_boxes for x in tiny.batch()[:1]]
    with torch.no_grad():
        plain, found = heads(levels, boxes), mapped(levels, boxes)
    torch.testing.assert_close(found.logits, plain.logits[:, [*ORDER, 4]])
    by_class = plain.deltas.view(len(plain.deltas), -1, 4)[:, ORDER]  # (R, K, 4)
    torch.testing.assert_close(found.deltas, by_class.flatten(1))
    assert build_model(load(config)).teacher.module.heads.box.objects == 3


def test_what_is_inherited_is_in_the_students_order(config):
    cfg = load(config)
    student = build_model(cfg)
    inherit_from_yaml(cfg, student)
    saved = torch.load(config.parent / "teacher.pth", weights_only=True)["model"]
    name = "roi_heads.box_predictor.cls_score.weight"
    assert torch.equal(student.state_dict()[name], saved[name][[*ORDER, 4]])


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["DATASETS.MAP_CLASSES", "False"], r"the teacher must be .* \['b', 'unused'.*METHODS DKD"),
        (["DATASETS.MAP_CLASSES", "True"], r"every class of the student must be .* missing: 'd'"),
    ],
)
def test_classes_that_differ_are_refused(config, opts, words):
    (name,) = load(config).DATASETS.TRAIN
    MetadataCatalog.get(name).thing_classes[2] = "c" if "False" in opts else "d"
    with pytest.raises(ValueError, match=words):
        build_model(load(config, *opts))
    MetadataCatalog.get(name).thing_classes[2] = "c"
    levels = [*opts, "MODEL.DISTILL.METHODS", "('ReviewKD',)"]
    assert build_model(load(config, *levels)).teacher is not None  # which have no classes


def test_a_teachers_classes_are_those_of_its_data_where_no_run_tells(tmp_path):
    config = tiny.save_teacher(tmp_path)
    assert teacher_classes(str(config), "") is None
    json_file, images = scenes.write_scenes(tmp_path)
    data = {"COCO_FORMAT": [["mine", str(json_file), str(images)]], "TRAIN": ["mine"]}
    config = tiny.save_teacher(tmp_path, DATASETS=data)
    assert teacher_classes(str(config), "") == ["class 0", "class 1", "class 2"]
    opts = ["MODEL.ROI_HEADS.NUM_CLASSES", 5]  # a base config's data is not the teacher's
    assert teacher_classes(str(config), "", opts) is None
    assert len(teacher_classes("COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml", "")) == 80


def test_a_teacher_whose_classes_nobody_tells_is_warned_of(caplog):
    assert match_classes(["a", "b"], None, "METHODS DKD", "KEY", map_them=True) == []
    assert "METHODS DKD takes its classes for those of the student" in caplog.text
