"""What is said before a training rather than in its midst."""

import sys
from types import SimpleNamespace

import pytest
import torch
from fvcore.common.param_scheduler import LinearParamScheduler

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.data import register_coco_format
from reviewkd_det.d2.runs import from_yaml, hooks
from reviewkd_det.d2.runs.batch_statistics import TrainImages, check_batch_statistics
from reviewkd_det.d2.runs.best_metric import COCO_METRICS, find_best_metric
from reviewkd_det.d2.runs.device import usable_device
from reviewkd_det.d2.runs.preflight import check_pictures, check_run, check_schedule
from tests.d2 import scenes, tiny
from tests.d2.test_meta_arch import make


@pytest.mark.parametrize("name", ["cudaa", "cuda:x", "gpu", "cuda:77", "mps", "meta", "xpu:9"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ValueError, match=f"MODEL.DEVICE must name a device.* got '?{name}"):
        usable_device(name, "MODEL.DEVICE")


def test_without_a_gpu_cuda_is_the_cpu():
    assert usable_device("cpu", "") == "cpu"
    assert usable_device("cuda", "") == ("cuda" if torch.cuda.is_available() else "cpu")


def test_pictures_need_opencv(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    check_pictures(0, "VIS_PERIOD")
    with pytest.raises(ImportError, match=r"VIS_PERIOD must be 0 without OpenCV; got 20; .*pip"):
        check_pictures(20, "VIS_PERIOD")


@pytest.mark.parametrize(
    ("kind", "keypoints", "words"),
    [("RetinaNet", False, "for RetinaNet"), ("GeneralizedRCNN", True, "for .* with keypoints"),
     ("PanopticFPN", False, "for PanopticFPN"), ("GeneralizedRCNN", False, "")],
)  # fmt: skip
def test_augmentation_is_refused_for_what_it_cannot_do(tmp_path, kind, keypoints, words):
    cfg = load_config(tiny.save_student(tmp_path))
    cfg.MODEL.DISTILL.STUDENT_META_ARCHITECTURE, cfg.MODEL.KEYPOINT_ON = kind, keypoints
    check_run(cfg, training=True)
    cfg.TEST.AUG.ENABLED = True
    if not words:
        return check_run(cfg, training=True)
    with pytest.raises(ValueError, match=f"TEST.AUG.ENABLED must be False .*got True {words}"):
        check_run(cfg, training=False)


def test_a_metric_is_that_of_the_set_it_names_or_of_the_first():
    def find(metric, *sets):
        return find_best_metric(metric, "TEST.BEST_METRIC", sets, COCO_METRICS)

    assert find("bbox/AP", "val") == find("val/bbox/AP", "val") == "bbox/AP"
    assert find("segm/AP50", "val", "dev") == "val/segm/AP50"
    assert find("dev/bbox/AP-cat", "val", "dev") == "dev/bbox/AP-cat"
    for wrong in ("bbox/AP51", "AP", "box/AP", "test/bbox/AP"):
        words = "must be a result of the evaluation, bbox/AP, .*after one of val, dev and a slash"
        with pytest.raises(ValueError, match=f"TEST.BEST_METRIC {words}; got '{wrong}'"):
            find(wrong, "val", "dev")
    assert find_best_metric("lvis/APr", "", ["val"], {}) == "lvis/APr"  # of results not known


class Ending(LinearParamScheduler):
    """A schedule that has no value at its end."""

    def __call__(self, where):
        if where >= 1:
            raise ValueError(where)
        return super().__call__(where)


def test_a_schedule_without_a_value_at_its_end_trains_and_one_without_others_is_refused():
    check_schedule(Ending(1.0, 0.0), 10, "lr")
    with pytest.raises(ValueError, match=r"lr must have a value in each of 4 .* iteration 3: Zero"):
        check_schedule(lambda where: 1 / (where - 0.75), 4, "lr")
    weight = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(weight.parameters(), lr=0.1)
    hook = hooks.LRScheduler(optimizer, Ending(1.0, 0.0))
    storage = SimpleNamespace(put_scalar=lambda *_, **__: None)
    hook.trainer = SimpleNamespace(iter=0, max_iter=4, storage=storage, optimizer=optimizer)
    hook.before_train()
    optimizer.step()
    for hook.trainer.iter in range(4):
        hook.after_step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.025)
    hook.trainer.max_iter = 9
    with pytest.raises(ValueError, match=r"1\.25"):
        hook.after_step()


def images(name, in_batch=1, shortest=64):
    return TrainImages("SOLVER.IMS_PER_BATCH", in_batch, shortest, 96, [name])


def test_one_image_is_refused_where_a_level_of_one_cell_is_normalised(tmp_path):
    register_coco_format("one_image", *scenes.write_scenes(tmp_path))
    _, model = make(tmp_path)
    model.train()
    words = "SOLVER.IMS_PER_BATCH .* got 1 image of 64 x 64 pixels in MODEL.DISTILL.REVIEWKD; .* 2 "
    with pytest.raises(ValueError, match=words):
        check_batch_statistics(model, images("one_image"))
    check_batch_statistics(model, images("one_image", in_batch=2))
    check_batch_statistics(model, images("one_image", shortest=128))
    check_batch_statistics(model.student, images("one_image"))  # its levels are not normalised
    with torch.no_grad(), pytest.raises(ValueError, match="more than 1 value per channel"):
        model(tiny.batch(sizes=[(64, 64)]))  # so it would have failed


def test_where_sizes_are_not_known_the_step_says_it(tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "SIZES", [(64, 64)] * 4)
    tree = scenes.run_tree(tmp_path, "one_cropped_image", IMS_PER_BATCH=1)
    tree["INPUT"]["CROP"] = {"ENABLED": True, "SIZE": [1.0, 1.0]}
    register_coco_format(*tree["DATASETS"]["COCO_FORMAT"][0])
    tiny.save_teacher(tmp_path)
    trainer = from_yaml.build_trainer(load_config(tiny.save_student(tmp_path, **tree)))
    trainer.resume_or_load(resume=False)
    with pytest.raises(ValueError, match=r"SOLVER.IMS_PER_BATCH must give each process 2 images"):
        trainer.train()
