"""faster-coco-eval against pycocotools, on boxes and masks drawn at random."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, coco_evaluation
from detectron2.structures import Boxes, Instances

from reviewkd_det.d2 import evaluation
from reviewkd_det.d2.config import load_config
from reviewkd_det.d2.data import register_coco_format
from reviewkd_det.d2.evaluation import FastCOCOEvaluator, counted_detections, fast_coco_eval
from reviewkd_det.d2.runs import from_yaml
from tests.d2 import scenes, tiny

HEIGHT, WIDTH = 150, 210
CLASSES = 5  # the last has neither objects nor detections
IMAGES = 6


def random_boxes(rng, count):
    """(count, 4) of whole pixels, x1 y1 x2 y2; a few of them large, for every range of areas."""
    width, height = (rng.integers(8, side, count) for side in (WIDTH // 2, HEIGHT // 2))
    x, y = rng.integers(0, WIDTH - width), rng.integers(0, HEIGHT - height)
    boxes = np.stack([x, y, x + width, y + height], axis=1)
    boxes[0] = (5, 7, WIDTH - 9, HEIGHT - 3)
    return boxes


def annotation(number, image_id, box, category, crowd):
    x1, y1, x2, y2 = map(int, box)
    counts = [x1 * HEIGHT]  # column after column
    counts += [y1, y2 - y1, HEIGHT - y2] * (x2 - x1)
    zeros, *rest = counts
    runs = [zeros + rest[0], rest[1]]
    for k in range(1, x2 - x1):
        runs += [rest[3 * k - 1] + rest[3 * k], rest[3 * k + 1]]
    runs.append(rest[-1] + (WIDTH - x2) * HEIGHT)
    return {
        "id": number,
        "image_id": image_id,
        "category_id": int(category) + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": int(crowd),
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": runs}
        if crowd
        else [[x1, y1, x2, y1, x2, y2, x1, y2]],
    }


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """The name of a data set with crowds, and its boxes and classes per image."""
    folder = tmp_path_factory.mktemp("objects")
    rng = np.random.default_rng(3)
    boxes = [random_boxes(rng, 9) for _ in range(IMAGES)]
    classes = [rng.integers(0, CLASSES - 1, 9) for _ in range(IMAGES)]
    annotations = [
        (image + 1, box, category, index % 4 == 1)
        for image in range(IMAGES)
        for index, (box, category) in enumerate(zip(boxes[image], classes[image], strict=True))
    ]
    content = {
        "images": [
            {"id": i + 1, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH}
            for i in range(IMAGES)
        ],
        "annotations": [annotation(n + 1, *entry) for n, entry in enumerate(annotations)],
        "categories": [{"id": i + 1, "name": f"class {i}"} for i in range(CLASSES)],
    }
    path = folder / "objects.json"
    path.write_text(json.dumps(content))
    name = "objects_for_fast_evaluation"
    MetadataCatalog.get(name).set(
        json_file=str(path),
        evaluator_type="coco",
        thing_classes=[entry["name"] for entry in content["categories"]],
        thing_dataset_id_to_contiguous_id={i + 1: i for i in range(CLASSES)},
    )
    return name, boxes, classes


def detections(boxes, classes, scores):
    """One image's `Instances`, each mask all of its box."""
    instances = Instances((HEIGHT, WIDTH))
    instances.pred_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32))
    instances.pred_classes = torch.as_tensor(classes)
    instances.scores = torch.as_tensor(scores, dtype=torch.float32)
    masks = torch.zeros(len(boxes), HEIGHT, WIDTH, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, np.asarray(boxes), strict=True):
        mask[y1:y2, x1:x2] = True
    instances.pred_masks = masks
    return instances


def near_objects(boxes, classes):
    """Shifted boxes of objects and of nothing, some of the wrong class, with equal scores."""
    rng = np.random.default_rng(5)
    for image_boxes, image_classes in zip(boxes, classes, strict=True):
        shifted = image_boxes.repeat(3, axis=0) + rng.integers(-5, 6, (27, 4))
        found = np.concatenate([shifted, random_boxes(rng, 100)])
        found = found.clip(0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
        guessed = rng.integers(0, CLASSES - 1, len(found))
        guessed[:22] = image_classes.repeat(3)[:22]
        yield detections(found, guessed, rng.integers(0, 40, len(found)) / 40)


def evaluate(evaluator, images):
    evaluator.reset()
    for index, instances in enumerate(images):
        evaluator.process([{"image_id": index + 1}], [{"instances": instances}])
    return evaluator.evaluate()


def test_every_number_is_that_of_pycocotools(objects, tmp_path):
    pytest.importorskip("faster_coco_eval")
    name, *truth = objects
    slow = COCOEvaluator(name, output_dir=str(tmp_path), use_fast_impl=False)
    expected = evaluate(slow, near_objects(*truth))
    evaluator = FastCOCOEvaluator(name, output_dir=str(tmp_path))
    results = evaluate(evaluator, near_objects(*truth))
    again = evaluate(evaluator, near_objects(*truth))
    assert set(results) == {"bbox", "segm"}
    for task, numbers in expected.items():
        assert {"AP", "AP50", "AP75", "APs", "APm", "APl", "AP-class 0"} <= set(numbers)
        assert 1 < numbers["AP"] < 99
        assert len({round(value, 3) for value in numbers.values()}) > 6
        assert math.isnan(numbers["AP-class 4"])
        assert results[task] == pytest.approx(numbers, abs=1e-9, nan_ok=True)
        assert again[task] == pytest.approx(numbers, abs=1e-9, nan_ok=True)


def test_finding_every_object_is_worth_100_whatever_is_found_in_crowds(objects, tmp_path):
    pytest.importorskip("faster_coco_eval")
    name, boxes, classes = objects
    found = [
        # Twice in each crowd, which is no mistake.
        detections(*(np.concatenate([part, part[1::4]]) for part in pair), [0.5] * 11)
        for pair in zip(boxes, classes, strict=True)
    ]
    results = evaluate(FastCOCOEvaluator(name, output_dir=str(tmp_path)), found)
    for task in ("bbox", "segm"):
        assert results[task]["AP"] == results[task]["AP-class 2"] == pytest.approx(100, abs=1e-9)


def test_no_detections_are_not_a_number(objects, tmp_path):
    pytest.importorskip("faster_coco_eval")
    evaluator = FastCOCOEvaluator(objects[0], output_dir=str(tmp_path))
    none = detections(np.zeros((0, 4), dtype=int), [], [])
    with pytest.warns(DeprecationWarning, match="warn"):
        results = evaluate(evaluator, [none] * IMAGES)
    assert math.isnan(results["bbox"]["AP"])


def test_other_evaluators_keep_their_own_implementation(objects, tmp_path, monkeypatch):
    pytest.importorskip("faster_coco_eval")
    name, *truth = objects
    before = coco_evaluation.COCOeval_opt
    evaluator = FastCOCOEvaluator(name, output_dir=str(tmp_path))
    assert coco_evaluation.COCOeval_opt is before
    used = []

    class Spy(fast_coco_eval()):
        def evaluate(self):
            used.append(coco_evaluation.COCOeval_opt)
            raise ZeroDivisionError

    monkeypatch.setattr(evaluator, "_coco_eval", Spy)
    with pytest.raises(ZeroDivisionError):
        evaluate(evaluator, near_objects(*truth))
    assert used == [Spy]
    assert coco_evaluation.COCOeval_opt is before


def student(folder, fast):
    name = f"scenes_{folder.name}"
    tree = scenes.run_tree(folder, name)
    tiny.save_teacher(folder)
    register_coco_format(*tree["DATASETS"]["COCO_FORMAT"][0])
    return name, load_config(tiny.save_student(folder, TEST={"FAST_COCO_EVAL": fast}, **tree))


@pytest.mark.parametrize(("fast", "kind"), [(True, FastCOCOEvaluator), (False, COCOEvaluator)])
def test_the_key_chooses_the_evaluator(tmp_path, fast, kind):
    if fast:
        pytest.importorskip("faster_coco_eval")
    name, cfg = student(tmp_path, fast)
    assert type(from_yaml.build_evaluator(cfg, name)) is kind


def test_without_the_package_pycocotools_evaluates(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    name, cfg = student(tmp_path, True)
    assert type(from_yaml.build_evaluator(cfg, name)) is COCOEvaluator
    with pytest.raises(ImportError, match=r"FastCOCOEvaluator needs faster-coco-eval: .*pip i"):
        FastCOCOEvaluator(name)


@pytest.mark.parametrize("fast", [False, True])
def test_more_than_100_detections_of_an_image_count(tmp_path, fast):
    if fast:
        pytest.importorskip("faster_coco_eval")
    name, cfg = student(tmp_path, fast)
    cfg.TEST.DETECTIONS_PER_IMAGE = 300
    boxes = np.array([[x, y, x + 9, y + 9] for x in range(0, 200, 10) for y in range(0, 150, 10)])
    content = json.loads((tmp_path / "scenes.json").read_text())
    content["images"] = [{"id": 1, "file_name": "0.png", "height": HEIGHT, "width": WIDTH}]
    content["annotations"] = [annotation(i + 1, 1, box, 0, False) for i, box in enumerate(boxes)]
    (tmp_path / "scenes.json").write_text(json.dumps(content))
    DatasetCatalog.get(name)
    found = [detections(boxes, [0] * len(boxes), np.linspace(1, 0.1, len(boxes)))]
    results = evaluate(from_yaml.build_evaluator(cfg, name), found)
    for task in ("bbox", "segm"):
        assert results[task]["AP"] == results[task]["AP50"] == pytest.approx(100)
        assert results[task]["AP-class 0"] == pytest.approx(100)


def test_fewer_detections_are_counted_as_ever_and_all_where_there_is_no_limit():
    assert [counted_detections(number) for number in (0, 20, 100, 101)] == [None, None, None, 101]
    assert counted_detections(-1) >= 1000
