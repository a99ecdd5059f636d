"""The precision of a teacher's backbone that is chosen, and kept."""

import json
import logging

import pytest
import torch
import yaml

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.config import get_config
from reviewkd_det.d2.teacher import precision as chosen_by
from reviewkd_det.d2.teacher.build import TeacherLoader
from tests.d2 import tiny
from tests.d2.test_scripts import call, prepare

KEY = "MODEL.DISTILL.TEACHER.PRECISION"
AUTO = [KEY, "auto"]


def units(monkeypatch, *, present=True):
    monkeypatch.setattr(chosen_by, "computes_in_bfloat16", lambda device: present)


@pytest.mark.parametrize(
    ("present", "most", "expected"),
    [(True, 1.0, torch.bfloat16), (True, 1e-4, torch.float32), (False, 1.0, torch.float32)],
)
def test_it_is_bfloat16_where_the_units_are_and_the_levels_stay(
    tmp_path, monkeypatch, caplog, present, most, expected
):
    tiny.save_teacher(tmp_path)
    units(monkeypatch, present=present)
    monkeypatch.setattr(chosen_by, "MOST", most)
    cfg = load_config(tiny.save_student(tmp_path), AUTO)
    with caplog.at_level(logging.INFO):
        module = TeacherLoader.from_config(cfg)().module
    assert module.precision == expected
    assert {p.dtype for p in module.backbone.parameters()} == {expected}
    assert ("in bfloat16 the teacher's levels differ by" in caplog.text) is present
    levels = module([x["image"] for x in tiny.batch()], (64, 96))
    plain = TeacherLoader.from_config(load_config(tmp_path / "student.yaml"))().module
    exact = plain([x["image"] for x in tiny.batch()], (64, 96))
    if expected == torch.float32:  # and nothing was rounded on the way
        assert all(torch.equal(levels[name], level) for name, level in exact.items())


def test_it_is_the_default():
    assert get_config().MODEL.DISTILL.TEACHER.PRECISION == "auto"


def test_a_run_keeps_what_was_chosen(tmp_path, request, monkeypatch):
    config = prepare(tmp_path, request)
    units(monkeypatch)
    monkeypatch.setattr(chosen_by, "MOST", 1.0)
    opts = [*AUTO, "SOLVER.MAX_ITER", "2", "OUTPUT_DIR", tmp_path / "out"]
    assert call(monkeypatch, "train_net.py", "--config-file", config, *opts) == 0
    saved = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert saved["MODEL"]["DISTILL"]["TEACHER"]["PRECISION"] == "bfloat16"
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["teacher_precision"] == "bfloat16"
    units(monkeypatch, present=False)  # it goes on on another machine
    more = ["--config-file", config, "--resume", *opts, "SOLVER.MAX_ITER", "3"]
    assert call(monkeypatch, "train_net.py", *more) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["iterations"], summary["teacher_precision"]) == (3, "bfloat16")


def test_a_gpu_has_the_units_from_its_eighth_generation_on(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for capability, expected in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
        monkeypatch.setattr("torch.cuda.get_device_capability", lambda _, x=capability: x)
        assert chosen_by.computes_in_bfloat16("cuda:0") is expected
    assert not chosen_by.computes_in_bfloat16("mps")


def test_a_processor_says_whether_it_has_them(monkeypatch):
    for known, expected in (({"avx512_bf16": True}, True), ({"avx2": True}, False), ({}, False)):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda x=known: x, raising=False)
        assert chosen_by.computes_in_bfloat16("cpu") is expected
