"""Each type of data set has its evaluator, which finds perfect predictions perfect."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import (
    load_sem_seg,
    register_coco_panoptic_separated,
    register_lvis_instances,
)
from detectron2.data.datasets.coco_panoptic import register_coco_panoptic
from PIL import Image

from reviewkd_det.d2.config import load_config
from reviewkd_det.d2.data import register_coco_format, use_for_builtin_coco
from reviewkd_det.d2.data.checks import check_data
from reviewkd_det.d2.evaluators import build_evaluator, results_of
from reviewkd_det.d2.runs import from_yaml
from tests.d2 import segments, tiny, zoo
from tests.d2.test_scripts import call, metrics

STUFF_HEAD = {"SEM_SEG_HEAD": {"NUM_CLASSES": len(segments.STUFF)}}
TWO = {"ROI_HEADS": {"NUM_CLASSES": len(segments.THINGS)}}
MASK_R_CNN = tiny.merged(tiny.R_CNN, TWO, {"MASK_ON": True})
PANOPTIC_FPN = tiny.merged(zoo.PANOPTIC_FPN, STUFF_HEAD, TWO)
SEGMENTOR = tiny.merged(zoo.SEMANTIC_SEGMENTOR, STUFF_HEAD)
SIZE = {"MIN_SIZE_TRAIN": [64], "MAX_SIZE_TRAIN": 96, "MIN_SIZE_TEST": 64, "MAX_SIZE_TEST": 96}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The folder of the files, and the names of data sets by their type."""
    use_for_builtin_coco()
    folder = segments.write(tmp_path_factory.mktemp("segments"))
    images = str(folder / "images")
    register_coco_format("segments_coco", str(folder / "instances.json"), images)
    paths = [images, str(folder / "panoptic"), str(folder / "panoptic.json")]
    semantic, instances = str(folder / "semantic"), str(folder / "instances.json")
    register_coco_panoptic_separated("segments", segments.METADATA, *paths, semantic, instances)
    register_lvis_instances("segments_lvis_v1", {}, instances, f"{folder}/")
    MetadataCatalog.get("segments_lvis_v1").thing_classes = segments.THINGS
    names = {
        "coco": "segments_coco",
        "sem_seg": "segments_stuffonly",
        "coco_panoptic_seg": "segments_separated",
        "lvis": "segments_lvis_v1",
    }
    yield SimpleNamespace(folder=folder, names=names)
    for name in names.values():
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)


def config(folder, model, **extra):
    path = tiny.write(folder / "a.yaml", tiny.detector(model, width=4, pyramid=8, **extra))
    return load_config(path, ["OUTPUT_DIR", str(folder / "run")])


def judged(cfg, data, name):
    """The results of perfect predictions."""
    evaluator = build_evaluator(cfg, name)
    evaluator.reset()
    for number, size in enumerate(segments.SIZES, start=1):
        file_name = str(data.folder / "images" / f"{number}.jpg")
        image = {"image_id": number, "file_name": file_name}
        evaluator.process([image], [segments.perfect(size)])
    return evaluator.evaluate()


@pytest.mark.filterwarnings("ignore:.*multiprocessing.[Pp]ool")  # panopticapi leaves it open
@pytest.mark.parametrize(
    ("kind", "model", "expected"),
    [
        ("coco", MASK_R_CNN, {"bbox": "AP", "segm": "AP"}),
        ("sem_seg", SEGMENTOR, {"sem_seg": "mIoU"}),
        (
            "coco_panoptic_seg",
            PANOPTIC_FPN,
            {"bbox": "AP", "segm": "AP", "sem_seg": "mIoU", "panoptic_seg": "PQ"},
        ),
        ("coco_panoptic_seg", MASK_R_CNN, {"bbox": "AP", "segm": "AP"}),
        ("coco_panoptic_seg", SEGMENTOR, {"sem_seg": "mIoU"}),
        ("lvis", MASK_R_CNN, {"bbox": "AP", "segm": "AP"}),
    ],
)
def test_perfect_predictions_are_worth_100(data, tmp_path, kind, model, expected):
    if "panoptic_seg" in expected:
        pytest.importorskip("panopticapi")
    if kind == "lvis":
        pytest.importorskip("lvis")
    cfg = config(tmp_path, model)
    DatasetCatalog.get(data.names["coco"])
    assert results_of(cfg, data.names[kind]) == expected
    results = judged(cfg, data, data.names[kind])
    assert results.keys() == expected.keys()
    for group, main in expected.items():
        assert results[group][main] == pytest.approx(100), group


@pytest.mark.filterwarnings("ignore:Creating a tensor")
@pytest.mark.parametrize(
    ("kind", "model", "results"),
    [
        ("coco_panoptic_seg", PANOPTIC_FPN, {"bbox/AP", "segm/AP", "sem_seg/mIoU"}),
        ("sem_seg", SEGMENTOR, {"sem_seg/mIoU"}),
    ],
)
def test_segmentation_is_trained_and_evaluated(data, tmp_path, monkeypatch, kind, model, results):
    model = tiny.merged(model, {"PANOPTIC_FPN": {"COMBINE": {"ENABLED": False}}})
    tiny.save_teacher(tmp_path, model)
    config = tiny.save_student(
        tmp_path,
        model,
        DATASETS={"TRAIN": [data.names[kind]], "TEST": [data.names[kind]]},
        INPUT=SIZE,
        DATALOADER={"NUM_WORKERS": 0},
        SOLVER={"IMS_PER_BATCH": 2, "MAX_ITER": 2, "BASE_LR": 0.001},
        TEST={"EVAL_PERIOD": 1, "BEST_METRIC": "sem_seg/mIoU"},
        OUTPUT_DIR=str(tmp_path / "run"),
    )
    assert call(monkeypatch, "train_net.py", "--config-file", config) == 0
    assert results | {"loss_sem_seg", "loss_reviewkd"} <= set(metrics(tmp_path / "run"))
    assert (tmp_path / "run" / "model_best.pth").is_file()


CITY = [(0, "car", 26), (1, "person", 24)]  # class of the model, name, id of Cityscapes


@pytest.fixture
def cityscapes(tmp_path):
    """The ground truth of two pictures of a city, and the names of its two data sets."""
    pytest.importorskip("cityscapesscripts")
    pytest.importorskip("pyquaternion")
    folder = tmp_path / "val" / "nowhere"
    folder.mkdir(parents=True)
    for number, size in enumerate(segments.SIZES):
        ids, kinds = np.full(size, 23, dtype=np.uint16), np.full(size, 10, dtype=np.uint8)  # sky
        for (_, x1, y1, x2, y2), (_, _, label) in zip(segments.OBJECTS, CITY, strict=True):
            ids[y1:y2, x1:x2], kinds[y1:y2, x1:x2] = label * 1000, label
        stem = folder / f"nowhere_00000{number}_000000_gtFine"
        Image.fromarray(ids).save(f"{stem}_instanceIds.png")
        Image.fromarray(np.where(kinds == 10, 23, kinds).astype(np.uint8)).save(
            f"{stem}_labelIds.png"
        )
    names = {kind: f"city_{kind}" for kind in ("cityscapes_instance", "cityscapes_sem_seg")}
    for kind, name in names.items():
        MetadataCatalog.get(name).set(
            evaluator_type=kind, gt_dir=str(folder.parent), thing_classes=["car", "person"]
        )
    yield names
    for name in names.values():
        MetadataCatalog.pop(name)


@pytest.mark.parametrize("kind", ["cityscapes_instance", "cityscapes_sem_seg"])
def test_a_perfect_view_of_a_city_is_worth_100(cityscapes, tmp_path, kind):
    model = MASK_R_CNN if kind == "cityscapes_instance" else SEGMENTOR
    evaluator = build_evaluator(config(tmp_path, model), cityscapes[kind])
    evaluator.reset()
    for number, size in enumerate(segments.SIZES):
        output = segments.perfect(size)
        labels = np.full(size, 10)  # sky, as it is trained on
        for (_, x1, y1, x2, y2), train_id in zip(segments.OBJECTS, (13, 11), strict=True):
            labels[y1:y2, x1:x2] = train_id
        output["sem_seg"] = torch.eye(19)[torch.from_numpy(labels)].permute(2, 0, 1)
        image = {"file_name": f"nowhere_00000{number}_000000_leftImg8bit.png"}
        evaluator.process([image], [output])
    results = evaluator.evaluate()
    found = results["segm"]["AP"] if "segm" in results else results["sem_seg"]["IoU"]
    assert found == pytest.approx(100)


def test_boxes_of_pascal_voc_are_worth_100(tmp_path):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("1\n2\n")
    objects = "".join(
        f"<object><name>{segments.THINGS[category]}</name><pose>x</pose><truncated>0</truncated>"
        f"<difficult>0</difficult><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for category, x1, y1, x2, y2 in segments.OBJECTS
    )
    for number in (1, 2):
        xml = f"<annotation>{objects}</annotation>"
        (tmp_path / "Annotations" / f"{number}.xml").write_text(xml)
    MetadataCatalog.get("segments_voc").set(
        evaluator_type="pascal_voc", dirname=str(tmp_path), split="val", year=2012,
        thing_classes=segments.THINGS,
    )  # fmt: skip
    evaluator = build_evaluator(config(tmp_path, tiny.merged(tiny.R_CNN, TWO)), "segments_voc")
    evaluator.reset()
    for number, size in enumerate(segments.SIZES, start=1):
        evaluator.process([{"image_id": str(number)}], [segments.perfect(size)])
    assert evaluator.evaluate()["bbox"] == pytest.approx({"AP": 100, "AP50": 100, "AP75": 100})
    MetadataCatalog.pop("segments_voc")


@pytest.fixture
def a_set(data):
    """A function that names a data set of some images and a type."""
    made = []

    def make(**metadata):
        name = f"a_set_{len(made)}"
        records = load_sem_seg(str(data.folder / "semantic"), str(data.folder / "images"))
        DatasetCatalog.register(name, lambda: records)
        MetadataCatalog.get(name).set(**metadata)
        made.append(name)
        return name

    yield make
    for name in made:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)


@pytest.mark.parametrize(
    ("kind", "module", "package"),
    [
        ("lvis", "lvis", "pip install lvis"),
        ("cityscapes_instance", "cityscapesscripts", "pip install cityscapesscripts"),
        ("cityscapes_sem_seg", "cityscapesscripts", "pip install cityscapesscripts"),
        ("coco_panoptic_seg", "panopticapi.evaluation", "git.https://.*panopticapi.git"),
    ],
)
def test_without_its_package_a_type_is_refused(a_set, tmp_path, monkeypatch, kind, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    name = a_set(evaluator_type=kind, sem_seg_root="x")
    cfg = config(tmp_path, PANOPTIC_FPN, DATASETS={"TRAIN": [name], "TEST": [name]})
    words = rf"'{name}', whose evaluator_type is {kind}, must have its package; got .*{package}"
    with pytest.raises(ImportError, match=words):
        check_data(cfg, training=True)


@pytest.mark.parametrize("kind", ["novel", None])
def test_an_unknown_type_is_refused(a_set, tmp_path, kind):
    name = a_set(**({} if kind is None else {"evaluator_type": kind}))
    cfg = config(tmp_path, tiny.R_CNN, DATASETS={"TRAIN": [name], "TEST": [name]})
    with pytest.raises(ValueError, match=f"cityscapes.*; got '{name}', whose .* is {kind}"):
        check_data(cfg, training=True)


def test_a_type_that_does_not_suit_the_detector_is_refused(a_set, tmp_path):
    name = a_set(evaluator_type="sem_seg")
    cfg = config(tmp_path, tiny.RETINANET, DATASETS={"TEST": [name]})
    with pytest.raises(
        ValueError, match="sem_seg judges sem_seg, with RetinaNet, which gives inst"
    ):
        check_data(cfg, training=False)


def test_the_best_metric_must_be_one_of_the_evaluation(a_set, tmp_path):
    name = a_set(evaluator_type="sem_seg", stuff_classes=segments.STUFF, ignore_label=255)
    test = {"EVAL_PERIOD": 5}
    data = {"TRAIN": [name], "TEST": [name]}
    cfg = config(tmp_path, SEGMENTOR, DATASETS=data, TEST=test)
    check_data(cfg, training=True)
    with pytest.raises(ValueError, match=r"result of the evaluation, sem_seg/mIoU, .*'bbox/AP'"):
        from_yaml.build_trainer(cfg)
    for metric in ("sem_seg/mIoU", f"{name}/sem_seg/mACC", "sem_seg/IoU-cat"):
        cfg.TEST.BEST_METRIC = metric
        settings = from_yaml.build_trainer(cfg).settings
        assert settings.best_metric == metric.removeprefix(f"{name}/")


@pytest.mark.parametrize(
    ("metadata", "picture", "words"),
    [
        ({"stuff_classes": ["a", "b"]}, None, "NUM_CLASSES must be .*'a_set_0', 2; got 3"),
        (
            {"ignore_label": 0},
            None,
            "IGNORE_VALUE must be the ignore_label of 'a_set_0', 0; got 255",
        ),
        ({}, Image.new("L", (96, 64), 7), r"1.png' must have values 0 to 2, and 255 .*; got 7"),
        ({}, Image.new("P", (96, 64), 1), r"1.png' must be grey of 8 bits, mode L; got mode P"),
    ],
)
def test_pictures_of_classes_must_be_those_of_the_head(
    a_set, data, tmp_path, metadata, picture, words
):
    defaults = {"stuff_classes": segments.STUFF, "ignore_label": 255, "evaluator_type": "sem_seg"}
    name = a_set(**{**defaults, **metadata})
    if picture is not None:
        picture.save(tmp_path / "1.png")
        DatasetCatalog.get(name)[0]["sem_seg_file_name"] = str(tmp_path / "1.png")
    cfg = config(tmp_path, SEGMENTOR, DATASETS={"TRAIN": [name], "TEST": [name]})
    with pytest.raises(ValueError, match=words):
        check_data(cfg, training=True)


def test_a_standard_panoptic_set_is_judged_by_its_segments_alone(data, tmp_path):
    paths = [
        str(data.folder / x) for x in ("images", "panoptic", "panoptic.json", "instances.json")
    ]
    register_coco_panoptic("segments_standard", segments.METADATA, *paths)
    assert results_of(config(tmp_path, PANOPTIC_FPN), "segments_standard") == {"panoptic_seg": "PQ"}
    for catalog in (DatasetCatalog, MetadataCatalog):
        catalog.pop("segments_standard")


def test_missing_files_of_detectron2s_own_data_say_where_it_looks(tmp_path):
    cfg = config(tmp_path, tiny.R_CNN, DATASETS={"TEST": ["voc_2007_test"]})
    with pytest.raises(
        FileNotFoundError, match=r"'voc_2007_test' must .*VOC2007.*DETECTRON2_DATASETS"
    ):
        check_data(cfg, training=False)


def test_data_of_other_formats_is_trained_and_evaluated(tmp_path, monkeypatch):
    places = {"a": "train/images", "b": "val/images"}
    for (stem, place), size in zip(places.items(), segments.SIZES, strict=True):
        (tmp_path / place).mkdir(parents=True)
        Image.new("RGB", size[::-1]).save(tmp_path / place / f"{stem}.png")
    box = "<bndbox><xmin>5</xmin><ymin>7</ymin><xmax>44</xmax><ymax>40</ymax></bndbox>"
    xml = f"<annotation><object><name>cat</name>{box}</object></annotation>"
    (tmp_path / "train" / "a.xml").write_text(xml)
    (tmp_path / "val" / "labels").mkdir()
    (tmp_path / "val" / "labels" / "b.txt").write_text("0 0.5 0.5 0.3 0.3\n")
    (tmp_path / "data.yaml").write_text("val: val/images\nnames: [cat]\n")
    train, val = f"voc_of_{tmp_path.name}", f"yolo_of_{tmp_path.name}"
    config = tiny.write(
        tmp_path / "a.yaml",
        tiny.detector(
            tiny.merged(tiny.R_CNN, {"ROI_HEADS": {"NUM_CLASSES": 1}}),
            width=4,
            pyramid=8,
            DATASETS={
                "VOC_FORMAT": [[train, str(tmp_path), "train"]],
                "YOLO_FORMAT": [[val, str(tmp_path / "data.yaml"), "val"]],
                "TRAIN": [train],
                "TEST": [val],
            },
            INPUT=SIZE,
            DATALOADER={"NUM_WORKERS": 0},
            SOLVER={"IMS_PER_BATCH": 1, "MAX_ITER": 1, "BASE_LR": 0.001},
            OUTPUT_DIR=str(tmp_path / "run"),
        ),
    )
    assert call(monkeypatch, "train_net.py", "--config-file", config) == 0
    assert {"loss_cls", "bbox/AP"} <= set(metrics(tmp_path / "run"))
    assert sorted(path.name for path in (tmp_path / "run" / "data").glob("*.json")) == [
        f"{train}.json", f"{val}.json"
    ]  # fmt: skip
    saved = tmp_path / "run" / "config.yaml"
    weights = ["MODEL.WEIGHTS", tmp_path / "run" / "model_final.pth"]
    assert call(monkeypatch, "train_net.py", "--eval-only", "--config-file", saved, *weights) == 0
