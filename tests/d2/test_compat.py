"""What Detectron2, fvcore and torch do not promise is there, and does what is relied on."""

import ast
import sys
from copy import copy
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.datasets import (
    coco_panoptic,
    register_coco_instances,
    register_coco_panoptic_separated,
)
from detectron2.data.samplers import TrainingSampler
from detectron2.engine import HookBase, SimpleTrainer, hooks
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn import functional as F

from reviewkd_det.d2 import compat, load_config
from reviewkd_det.d2.data import CheckedDatasetMapper, register_coco_format
from tests.d2 import scenes, tiny

ROOT = Path(__file__).resolve().parents[2]
# Where private names of others are used, beside the module that holds those of Detectron2.
PLACES = {
    "reviewkd_det/d2/compat.py",
    "reviewkd_det/common/tensors/compiled.py",  # errors of torch's compiler
    "reviewkd_det/core/hcl.py",  # one operation of torch, below
    "reviewkd_det/core/kernels/pooled_squares.py",
}
DOCUMENTED = {"_asdict", "_exit", "_replace"}  # of named tuples, of os


def private_names(tree, own):
    """Private names that a module takes from what is not its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names if alias.name.startswith("_"))
        elif isinstance(node, ast.Attribute) and node.attr not in own:
            yield node.attr


def test_private_names_of_others_are_used_in_their_places_alone():
    files = {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for package in ("reviewkd_det", "classification")
        for path in (ROOT / package).rglob("*.py")
    }
    own = set(DOCUMENTED)
    for node in (node for tree in files.values() for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            own.add(node.id if isinstance(node, ast.Name) else node.attr)
    for file in files.keys() - PLACES:
        used = {x for x in private_names(files[file], own) if x[0] == "_" and x[:2] != "__"}
        assert not used, f"{file} uses {', '.join(sorted(used))} of others"


def test_the_builtin_names_are_cocos():
    names = compat.builtin_coco_names()
    assert {"coco_2017_train", "coco_2017_val", "keypoints_coco_2017_val"} <= set(names)
    assert set(names) <= set(DatasetCatalog.list())
    assert all(MetadataCatalog.get(name).json_file for name in names)


def test_the_parts_of_training_batches_are_of_the_config(tmp_path):
    json_file, images = scenes.write_scenes(tmp_path)
    register_coco_format("scenes_of_compat", str(json_file), str(images))
    data = {"DATASETS": {"TRAIN": ["scenes_of_compat"]}, "SOLVER": {"IMS_PER_BATCH": 3}}
    config = tiny.write(tmp_path / "a.yaml", tiny.detector(tiny.R_CNN, width=4, pyramid=8, **data))
    cfg = load_config(config)
    parts = compat.train_parts(cfg, CheckedDatasetMapper(cfg, is_train=True))
    assert parts["total_batch_size"] == 3
    assert {record["image_id"] for record in parts["dataset"]} == {1, 2, 3, 4}
    assert sorted(islice(parts["sampler"], 4)) == [0, 1, 2, 3]


def test_the_pictures_of_a_storage_are_found():
    with EventStorage(3) as storage:
        storage.put_image("levels", torch.zeros(3, 2, 4))
        ((name, image),) = compat.images_of(storage)
    assert (name, image.shape) == ("levels", (3, 2, 4))


def test_the_order_of_images_is_that_of_every_version(monkeypatch):
    cfg = load_config(ROOT / "configs" / "demo" / "student.yaml", ["SEED", "5"])
    orders = []
    for sampler in (lambda: TrainingSampler(9), lambda: TrainingSampler(9, seed=cfg.SEED)):
        made = {"dataset": [0] * 9}
        monkeypatch.setattr(
            compat,
            "_train_loader_from_config",
            lambda *_, made=made, sampler=sampler, **__: {**made, "sampler": sampler()},
        )
        np.random.seed(3)
        orders.append(list(islice(compat.train_parts(cfg, None)["sampler"], 18)))
    assert orders[0] == orders[1]


def test_data_sets_of_detectron2s_registration_are_known():
    register_coco_instances("of_the_user", {}, "a.json", "images")
    DatasetCatalog.register("of_a_function", lambda: [])
    names = compat.registered_coco_names()
    assert "of_the_user" in names
    assert "of_a_function" not in names
    for name in ("of_the_user", "of_a_function"):
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)


def test_an_unknown_name_leads_to_its_registry():
    with pytest.raises(KeyError) as caught:
        BACKBONE_REGISTRY.get("none")
    assert compat.registry_of(caught.value) is BACKBONE_REGISTRY


def test_the_zoo_is_imported_without_pkg_resources(monkeypatch):
    for name in ("detectron2.model_zoo", "detectron2.model_zoo.model_zoo", "pkg_resources"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    name = "COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml"
    assert compat.zoo_checkpoint(name).endswith("/137849458/model_final_280758.pkl")
    assert "pkg_resources" not in sys.modules


def test_an_evaluator_counts_with_the_class_that_stands_in(tmp_path):
    class Counted(Exception):  # noqa: N818
        pass

    class StandIn:
        def __init__(self, *_):
            raise Counted

    json_file, images = scenes.write_scenes(tmp_path)
    register_coco_format("scenes_of_counting", str(json_file), str(images))
    DatasetCatalog.get("scenes_of_counting")
    with compat.counted_by(StandIn):
        evaluator = COCOEvaluator("scenes_of_counting", ("bbox",), distributed=False)
        evaluator.reset()
        for given in tiny.batch()[:1]:
            found = given["instances"]
            found.pred_boxes, found.pred_classes = found.gt_boxes, found.gt_classes
            found.scores = torch.ones(len(found))
            evaluator.process([{"image_id": 1}], [{"instances": found}])
        with pytest.raises(Counted):
            evaluator.evaluate()


def test_a_checkpointer_calls_what_is_overridden_in_its_order(tmp_path):
    overridden = compat.OVERRIDDEN[DetectionCheckpointer]
    called = []

    def spy(name):
        def call(self, *arguments):
            called.append((name, copy(arguments[0]), compat.url_query(self)))
            return getattr(super(Spied, self), name)(*arguments)

        return call

    Spied = type("Spied", (DetectionCheckpointer,), {name: spy(name) for name in overridden})  # noqa: N806
    torch.save({"weight": torch.zeros(2, 3), "other": torch.zeros(1)}, tmp_path / "a.pth")
    checkpointer = Spied(nn.Linear(4, 2))
    checkpointer.load(f"{tmp_path / 'a.pth'}?matching_heuristics=True")
    assert [name for name, _, _ in called] == list(overridden)
    assert {query for _, _, query in called} == {"matching_heuristics=True"}
    file, checkpoint, incompatible = (argument for _, argument, _ in called)
    assert file == str(tmp_path / "a.pth")
    assert "model" in checkpoint
    assert {"bias", "weight"} <= {*incompatible.missing_keys, *incompatible.incorrect_shapes}


def test_a_mapper_calls_what_is_overridden_with_all_objects_and_leaves_instances(tmp_path):
    (name,) = compat.OVERRIDDEN[DatasetMapper]
    json_file, images = scenes.write_scenes(tmp_path)
    register_coco_format("scenes_of_mapping", str(json_file), str(images))
    given = []

    def spy(self, dataset_dict, transforms, image_shape):
        given.append(len(dataset_dict["annotations"]))
        getattr(super(Spied, self), name)(dataset_dict, transforms, image_shape)
        given.append(len(dataset_dict["instances"]))

    Spied = type("Spied", (DatasetMapper,), {name: spy})  # noqa: N806
    Spied(load_config(tiny.write(tmp_path / "a.yaml", {"VERSION": 2})), True)(
        DatasetCatalog.get("scenes_of_mapping")[0]
    )
    assert given == [2, 2]


def test_a_checkpointer_that_failed_loads_again_once_its_url_is_forgotten(tmp_path):
    checkpointer = DetectionCheckpointer(nn.Linear(2, 2))
    (tmp_path / "bad.pth").write_bytes(b"no checkpoint")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "good.pth")
    with pytest.raises(Exception, match=r"invalid|magic|pickle"):
        checkpointer.load(str(tmp_path / "bad.pth"))
    compat.forget_url(checkpointer)
    checkpointer.load(str(tmp_path / "good.pth"))


def test_a_trainer_has_its_hooks_in_the_order_of_their_registration():
    model = nn.Linear(1, 1)
    trainer = SimpleTrainer(model, [[]], torch.optim.SGD(model.parameters(), 0.1))
    registered = [HookBase(), hooks.IterationTimer()]
    trainer.register_hooks(registered)
    assert list(compat.hooks_of(trainer)) == registered


def test_a_hook_names_the_metric_that_it_keeps():
    checkpointer = DetectionCheckpointer(nn.Linear(1, 1))
    assert compat.metric_of(hooks.BestCheckpointer(5, checkpointer, "bbox/AP50")) == "bbox/AP50"


def test_torch_gives_the_gradient_of_bins_that_overlap():
    x = torch.randn(2, 3, 5, 7, requires_grad=True)
    pooled = F.adaptive_avg_pool2d(x, 4)
    gradient = torch.randn_like(pooled)
    pooled.backward(gradient)
    found = torch.ops.aten._adaptive_avg_pool2d_backward(gradient, x.detach())
    torch.testing.assert_close(found, x.grad)


def test_a_module_is_moved_by_one_method_of_all_its_parts():
    class Spied(nn.Linear):
        def _apply(self, function, recurse=True):
            return super()._apply(lambda x: 2 * function(x), recurse)

    linear = Spied(2, 2)
    before = linear.weight.clone()
    assert torch.equal(linear.to(torch.float64).weight, 2 * before.double())


def test_names_that_numpy_removed_are_there_in_the_block_alone():
    names = ("float", "in1d")
    before = [hasattr(np, name) for name in names]
    with compat.old_packages():
        assert np.ones(2, dtype=np.float).dtype == float
        assert np.in1d([[1, 2], [3, 2]], [2]).tolist() == [False, True, False, True]
    assert [hasattr(np, name) for name in names] == before


def test_an_evaluators_objects_can_be_completed(tmp_path):
    json_file, images = scenes.write_scenes(tmp_path)
    register_coco_format("scenes_of_objects", str(json_file), str(images))
    evaluator = COCOEvaluator("scenes_of_objects", output_dir=str(tmp_path))
    truth = compat.ground_truth_of(evaluator)
    assert truth.anns[3] is truth.imgToAnns[2][0]
    assert truth.anns[3]["bbox"] == [4, 6, 30, 34]


def test_the_objects_of_panoptic_data_are_loaded_by_the_function_given(monkeypatch):
    monkeypatch.setattr(coco_panoptic, "load_coco_json", coco_panoptic.load_coco_json)
    compat.use_for_panoptic(lambda json_file, image_root, name: [{"file_name": name}])
    monkeypatch.setattr(
        coco_panoptic, "load_sem_seg", lambda *roots: [{"file_name": "x_separated"}]
    )
    register_coco_panoptic_separated("x", {}, "", "", "", "", "")
    assert DatasetCatalog.get("x_separated") == [{"file_name": "x_separated"}]
