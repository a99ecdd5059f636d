"""Files of other programs as a detector's initial weights and as its teacher."""

import logging

import pytest
import torch
from detectron2.modeling import build_model

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.runs.checkpointer import StudentCheckpointer
from reviewkd_det.d2.teacher.build import TeacherLoader
from reviewkd_det.d2.teacher.source import read_teacher
from reviewkd_det.d2.weights.checkpoint import VerifiedCheckpointer
from tests.d2 import tiny

SAME = {"RESNETS": {"STEM_OUT_CHANNELS": 8, "RES2_OUT_CHANNELS": 8, "WIDTH_PER_GROUP": 8},
        "FPN": {"OUT_CHANNELS": 24}}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A teacher, and a config of a student of its sizes: either file would fit either."""
    path = tmp_path_factory.mktemp("wrapped")
    tiny.save_teacher(path)
    tiny.save_student(path, MODEL=SAME)
    return path


@pytest.fixture(scope="module")
def states(folder):
    theirs = torch.load(folder / "teacher.pth", weights_only=True)["model"]
    return {name: value + 1 for name, value in theirs.items()}, theirs


def prefixed(state, prefix):
    return {f"{prefix}{name}": value for name, value in state.items()}


def read(folder, content, key, *opts, name="file.pth"):
    """A config beside a file of this content, which a key names."""
    torch.save(content, folder / name)
    return load_config(folder / "student.yaml", [key, str(folder / name), *opts])


def student_of(folder, content, entry=""):
    cfg = read(folder, content, "MODEL.WEIGHTS", "MODEL.DISTILL.METHODS", "()")
    model = build_model(cfg)
    run = StudentCheckpointer(model, key="MODEL.WEIGHTS", entry=entry)
    run.resume_or_load(cfg.MODEL.WEIGHTS, resume=False)
    return model.state_dict()


def teacher_of(folder, content, entry=""):
    keys = "MODEL.DISTILL.TEACHER.WEIGHTS", "MODEL.DISTILL.TEACHER.WEIGHTS_ENTRY"
    cfg = read(folder, content, keys[0], keys[1], entry)
    settings = cfg.MODEL.DISTILL.TEACHER
    source = read_teacher(settings.CONFIG_FILE, settings.WEIGHTS, (), settings.WEIGHTS_ENTRY)
    TeacherLoader.from_config(cfg)()  # of its backbone alone
    return source.load_state()


def equal(state, other):
    return all(torch.equal(value, other[name]) for name, value in state.items())


def test_each_side_takes_its_own_of_equal_networks(folder, states, caplog):
    student, teacher = states
    both = prefixed(student, "module.student.") | prefixed(teacher, "module.teacher.")
    content = {"state_dict": both, "epoch": 3}
    assert equal(student_of(folder, content), student)
    with caplog.at_level(logging.INFO):
        assert equal(teacher_of(folder, content), teacher)
    words = "TEACHER.WEIGHTS: took entry 'state_dict' prefix 'module.teacher.' of "
    assert words in caplog.text
    assert equal(student_of(folder, content, "teacher"), teacher)
    assert equal(teacher_of(folder, content, "module.student"), student)


def test_averaged_weights_are_taken_where_they_are_named(folder, states):
    plain, average = states
    content = {"model_ema": prefixed(average, "module."), "model": plain, "optimizer": {}}
    assert equal(student_of(folder, content), plain)
    assert equal(student_of(folder, content, "model_ema"), average)
    assert equal(teacher_of(folder, content, "model_ema"), average)


def test_safetensors_and_a_wrapped_torchvision_file_are_read(folder, states):
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file({k: v.contiguous() for k, v in states[0].items()}, folder / "model.safetensors")
    model = build_model(read(folder, {}, "MODEL.WEIGHTS", "MODEL.DISTILL.METHODS", "()"))
    VerifiedCheckpointer(model, key="MODEL.WEIGHTS").load(str(folder / "model.safetensors"))
    assert equal(model.state_dict(), states[0])
    names = {"conv1.weight": "stem.conv1", "bn1.weight": "stem.conv1.norm",
             "layer1.0.conv1.weight": "res2.0.conv1"}  # fmt: skip
    content = {
        f"module.{theirs}": states[1][f"backbone.bottom_up.{ours}.weight"]
        for theirs, ours in names.items()
    }
    found = student_of(folder, {"state_dict": content})
    for theirs, ours in names.items():
        got = found[f"backbone.bottom_up.{ours}.weight"]
        assert torch.equal(got, content[f"module.{theirs}"])


def test_a_refusal_has_the_names_of_the_file(folder, states):
    student, teacher = states
    lacking = {name: value for name, value in teacher.items() if "fpn_lateral2" not in name}
    content = {"model": prefixed(student, "student.") | prefixed(lacking, "teacher.")}
    words = (
        rf"missing 2: backbone.fpn_lateral2.*; names in the file: model \(student. {len(student)}"
    )
    with pytest.raises(ValueError, match=rf"{words}, .*; taken: entry 'model' prefix 'teacher.'"):
        teacher_of(folder, content)
    with pytest.raises(ValueError, match=r"TEACHER.WEIGHTS must hold weights of the teacher; got"):
        teacher_of(folder, {"model": prefixed(student, "student.")})


def test_weights_that_the_model_has_not_are_said(folder, states, caplog):
    extra = {"roi_heads.mask_head.deconv.weight": torch.ones(2), "pixel_mean": torch.ones(3, 1, 1)}
    student_of(folder, {"model": states[0] | extra})
    words = "holds 1 weights that the model does not have: roi_heads.mask_head.deconv.weight"
    assert words in caplog.text
