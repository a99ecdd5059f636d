"""The line a run begins with, and the cost it names."""

import logging
import time

import pytest
import torch
from detectron2.modeling import build_model

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.runs.description import cost_of, describe, log_description
from tests.d2 import tiny
from tests.flops import work


def distilled(folder, model=tiny.R_CNN, **distill):
    tiny.save_teacher(folder, model)
    return build_model(load_config(tiny.save_student(folder, model, distill))).train()


def numbers(module):
    return f"{sum(p.numel() for p in module.parameters()):,}"


def test_a_distilled_run_says_what_learns_from_what(tmp_path):
    model = distilled(tmp_path)
    line = describe(model, "zoo/teacher.yaml")
    begin = (
        f"Distilling GeneralizedRCNN ({numbers(model.student)} parameters) from zoo/teacher.yaml "
        f"(backbone {numbers(model.teacher.module.backbone)}) with ReviewKD at "
        f"p2, p3, p4, p5, p6; {numbers(model.methods)} parameters more in training only; "
        "for each image teacher and methods add "
    )
    assert line.startswith(begin)
    assert f"{cost_of(model):.2f} times" in line
    assert "\n" not in line


def test_two_methods_are_both_named(tmp_path):
    model = distilled(tmp_path, METHODS=["DKD", "ReviewKD"], REVIEWKD={"IN_FEATURES": ["p3", "p4"]})
    assert " with DKD and ReviewKD at p3, p4; " in describe(model)


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_plain_run_says_what_is_trained(tmp_path, wrapped):
    config = tiny.save_student(tmp_path, distill={"METHODS": []})
    model = build_model(load_config(config))
    line = f"Training GeneralizedRCNN ({numbers(model)} parameters) without a teacher"
    assert describe(model if wrapped else model.student) == line


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("kind", [tiny.R_CNN, tiny.RETINANET], ids=["two stages", "one stage"])
def test_the_cost_is_that_of_a_real_step(tmp_path, kind, frozen):
    model = distilled(tmp_path, kind)
    if frozen:
        model.student.backbone.bottom_up.freeze(3)
    images = torch.randn(2, 3, 512, 512)
    levels, theirs = {}, {}
    backbone, method = model.student.backbone, model.methods["ReviewKD"]
    own = work(lambda: levels.update(backbone(images)) or levels.values(), learns=True)
    teacher = work(
        lambda: theirs.update(model.teacher.module.backbone(images)) or theirs.values(),
        learns=False,
    )
    ours = [levels[name].detach().requires_grad_() for name in model.levels]
    taught = [theirs[name] for name in model.levels]
    fusions = work(lambda: method.distiller(ours, taught), learns=True)
    assert cost_of(model) == pytest.approx((teacher + fusions) / own, rel=1e-6)


def test_the_cost_changes_neither_model_nor_random_state(tmp_path):
    model = distilled(tmp_path, REVIEWKD={"LOSS_WEIGHT": 1.0})
    parts = [model.student, model.methods, model.teacher.module]
    before = [{k: v.clone() for k, v in part.state_dict().items()} for part in parts]
    state, modes = torch.get_rng_state(), [m.training for m in model.modules()]
    assert cost_of(model) > 0
    for part, values in zip(parts, before, strict=True):
        assert all(torch.equal(v, values[k]) for k, v in part.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_a_teacher_of_half_precision_costs_as_much(tmp_path, precision):
    whole = cost_of(distilled(tmp_path))
    assert cost_of(distilled(tmp_path, TEACHER={"PRECISION": precision})) == whole


def test_what_cannot_be_counted_is_left_out(tmp_path):
    model = distilled(tmp_path)
    model.student.backbone.register_forward_pre_hook(lambda _, args: args[0].sum().item())
    assert cost_of(model) is None
    assert describe(model, "t.yaml").endswith("parameters more in training only")


def test_only_the_main_process_says_it(tmp_path, monkeypatch, caplog):
    model = build_model(load_config(tiny.save_student(tmp_path, distill={"METHODS": []})))
    caplog.set_level(logging.INFO, "reviewkd_det")
    monkeypatch.setattr("detectron2.utils.comm.is_main_process", lambda: False)
    log_description(model)
    assert not caplog.records
    monkeypatch.setattr("detectron2.utils.comm.is_main_process", lambda: True)
    log_description(model)
    assert [record.message for record in caplog.records] == [describe(model)]


@pytest.mark.slow
def test_counting_the_largest_recipe_takes_less_than_a_second():
    from benchmarks.speed.models import build_distilled, synthetic_batch

    cfg = load_config("configs/faster_rcnn_r101_r50.yaml", ["MODEL.DEVICE", "cpu"])
    model = build_distilled(cfg, synthetic_batch((64, 64), 2)).model
    start = time.perf_counter()
    assert cost_of(model) > 0
    assert time.perf_counter() - start < 1
