"""Weights in the files people have: each test makes its file, in the format of its origin."""

import io
import logging
import pickle
import re
from unittest.mock import patch

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.runs.checkpointer import StudentCheckpointer
from reviewkd_det.d2.teacher.build import TeacherLoader
from tests.d2 import tiny

BOTTOM_UP = "backbone.bottom_up."
FROZEN = {"MODEL": {"RESNETS": {"NORM": "FrozenBN"}}}
# Detectron2's names of a ResNet's parts, and what they are called in its sources' files.
MSRA = [
    (r"^stem\.conv1\.norm\.weight$", "res_conv1_bn_s"),
    (r"^stem\.conv1\.norm\.bias$", "res_conv1_bn_b"),
    (r"^stem\.conv1\.weight$", "conv1_w"),
    (r"\.shortcut\.", ".branch1."),
    (r"\.conv1\.", ".branch2a."),
    (r"\.conv2\.", ".branch2b."),
    (r"\.conv3\.", ".branch2c."),
    (r"\.norm\.weight$", ".bn_s"),
    (r"\.norm\.bias$", ".bn_b"),
    (r"\.weight$", ".w"),
    (r"\.", "_"),
]


def arrays(state):
    return {name: value.numpy() for name, value in state.items()}


def dump(path, content):
    path.write_bytes(pickle.dumps(content))
    return path


def build(folder, weights="", **extra):
    """A distilled student beside a saved teacher."""
    config = tiny.save_student(folder, **extra)
    torch.manual_seed(0)
    return load_config(config, ["MODEL.DISTILL.TEACHER.WEIGHTS", str(weights)])


def teacher_state(folder):
    return torch.load(folder / "teacher.pth", weights_only=True)["model"]


def check_teacher(cfg, state):
    """The teacher of a config has, before it is folded, the backbone weights of a state dict."""
    with patch("reviewkd_det.d2.teacher.build.fold_batch_norms"):
        loaded = TeacherLoader.from_config(cfg)().module.backbone.state_dict()
    assert loaded
    for name, value in loaded.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, state[f"backbone.{name}"]), name


def bottom_up_state(model):
    """Other weights for a model's bottom-up network, under that network's own names."""
    generator = torch.Generator().manual_seed(11)
    return {
        name.removeprefix(BOTTOM_UP): torch.rand(value.shape, generator=generator)
        for name, value in model.state_dict().items()
        if name.startswith(BOTTOM_UP) and not name.endswith("num_batches_tracked")
    }


def check_student(model, path, state, caplog):
    """Initial weights from a file fill the student's bottom-up network and nothing else."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with caplog.at_level(logging.INFO, logger="fvcore"):
        StudentCheckpointer(model, key="MODEL.WEIGHTS").resume_or_load(str(path), resume=False)
    after = model.state_dict()
    filled = {BOTTOM_UP + name for name in state}
    for name, value in state.items():
        assert torch.equal(after[BOTTOM_UP + name], value), name
    for name in set(after) - filled:
        assert torch.equal(after[name], before[name]), name
    assert "Initialised only in part" not in caplog.text


def test_a_zoo_pkl_is_a_teacher(tmp_path):
    tiny.save_teacher(tmp_path)
    state = teacher_state(tmp_path)
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    model = arrays(state) | {
        "pixel_mean": np.zeros((3, 1, 1), np.float32),  # old files hold both of these
        "proposal_generator.anchor_generator.cell_anchors.0": np.zeros((3, 4), np.float32),
    }
    content = {"model": model, "__author__": "Detectron2 Model Zoo"}
    check_teacher(build(tmp_path, dump(tmp_path / "model_final_f6e8b1.pkl", content)), state)


def test_the_last_checkpoint_of_a_run_is_a_teacher(tmp_path):
    cfg = load_config(tiny.save_teacher(tmp_path))
    detector = build_model(cfg)
    detector.load_state_dict(teacher_state(tmp_path))
    optimizer = build_optimizer(cfg, detector)
    scheduler = build_lr_scheduler(cfg, optimizer)
    sum(p.sum() for p in detector.parameters()).backward()
    optimizer.step()
    run = DetectionCheckpointer(detector, str(tmp_path), optimizer=optimizer, scheduler=scheduler)
    run.save("model_final", iteration=9)
    path = tmp_path / "model_final.pth"
    saved = torch.load(path, weights_only=True)
    assert {"model", "optimizer", "scheduler", "iteration"} <= set(saved)
    check_teacher(build(tmp_path, path), detector.state_dict())


def test_a_bare_state_dict_is_a_teacher(tmp_path):
    tiny.save_teacher(tmp_path)
    state = teacher_state(tmp_path)
    torch.save(state, tmp_path / "bare.pth")
    check_teacher(build(tmp_path, tmp_path / "bare.pth"), state)


def test_an_msra_pkl_starts_a_students_bottom_up_network(tmp_path, caplog):
    tiny.save_teacher(tmp_path)
    model = build_model(build(tmp_path, **FROZEN))
    state = bottom_up_state(model)
    for name, value in state.items():  # its batch norm is affine: the statistics are folded in
        if "running" in name:
            value.fill_(name.endswith("running_var"))
    content = {"fc1000_w": np.zeros((1000, 7), np.float32), "conv1_w_momentum": np.zeros(3)}
    for name, value in state.items():
        if "running" not in name:
            for pattern, replacement in MSRA:
                name = re.sub(pattern, replacement, name)
            content[name] = value.numpy()
    assert {"conv1_w", "res_conv1_bn_s", "res3_0_branch1_w", "res4_5_branch2c_bn_b"} <= set(content)
    path = dump(tmp_path / "R-50.pkl", content)
    check_student(model, path, state, caplog)


@pytest.mark.parametrize("extra", [{}, FROZEN], ids=["BN", "FrozenBN"])
def test_a_converted_torchvision_pkl_starts_a_students_bottom_up_network(tmp_path, caplog, extra):
    tiny.save_teacher(tmp_path)
    model = build_model(build(tmp_path, **extra))
    state = bottom_up_state(model)
    names = arrays(state) | {
        "stem.fc.weight": np.zeros((1000, 7), np.float32),
        "res2.0.conv1.norm.num_batches_tracked": np.array(0),
    }
    content = {"model": names, "__author__": "torchvision", "matching_heuristics": True}
    path = dump(tmp_path / "R-50.pkl", content)
    check_student(model, path, state, caplog)


def merged_file(folder, kind, model):
    """A file like the original project's; returns its path and the state dicts of both sides."""
    student, teacher = bottom_up_state(model), teacher_state(folder)
    prefix = "" if kind == "heuristics" else BOTTOM_UP
    both = {prefix + name: value for name, value in student.items()}
    both |= {f"teacher.{name}": value for name, value in teacher.items()}
    path = folder / f"merged_{kind}"
    if kind == "pth":
        torch.save({"model": both}, path.with_suffix(".pth"))
        return path.with_suffix(".pth"), student, teacher
    if kind == "pth of arrays":  # and of NumPy 1, which has other names for the same
        file = io.BytesIO()
        torch.save({"model": arrays(both)}, file, _use_new_zipfile_serialization=False)
        content = file.getvalue().replace(b"numpy._core", b"numpy.core")
        path.with_suffix(".pth").write_bytes(content)
        return path.with_suffix(".pth"), student, teacher
    content = {"model": arrays(both), "__author__": "ReviewKD"}
    if kind == "heuristics":
        content["matching_heuristics"] = True
    return dump(path.with_suffix(".pkl"), content), student, teacher


MERGED = pytest.mark.parametrize("kind", ["pth", "pth of arrays", "pkl", "heuristics"])


@MERGED
def test_each_side_takes_its_part_of_a_merged_file(tmp_path, caplog, kind):
    tiny.save_teacher(tmp_path)
    model = build_model(build(tmp_path))
    path, student, teacher = merged_file(tmp_path, kind, model)
    check_student(model, path, student, caplog)
    check_teacher(build(tmp_path, path), teacher)


def test_a_merged_file_of_equal_sides_is_not_mixed_up(tmp_path, caplog):
    tiny.save_teacher(tmp_path)  # the teacher's backbone would fit the student's
    sizes = {"STEM_OUT_CHANNELS": 8, "RES2_OUT_CHANNELS": 8, "WIDTH_PER_GROUP": 8}
    model = build_model(build(tmp_path, MODEL={"RESNETS": sizes}))
    path, student, teacher = merged_file(tmp_path, "heuristics", model)
    check_student(model, path, student, caplog)
    check_teacher(build(tmp_path, path), teacher)


def test_a_merged_file_without_the_students_part_is_no_initial_weights(tmp_path):
    tiny.save_teacher(tmp_path)
    model = build_model(build(tmp_path))
    theirs = {f"teacher.{name}": value for name, value in teacher_state(tmp_path).items()}
    torch.save({"model": theirs}, tmp_path / "theirs.pth")
    with pytest.raises(ValueError, match=r"MODEL.WEIGHTS must hold weights of the student"):
        StudentCheckpointer(model, key="MODEL.WEIGHTS").resume_or_load(
            str(tmp_path / "theirs.pth"), resume=False
        )


MISSING = (
    r"TEACHER.WEIGHTS must hold every weight of the model; missing \d+: "
    r"backbone.fpn_lateral2.weight, backbone.fpn_lateral2.bias, "
)


@pytest.mark.parametrize("heuristics", [True, False])
def test_an_imagenet_file_is_no_teacher(tmp_path, heuristics):
    tiny.save_teacher(tmp_path)
    prefix = "" if heuristics else BOTTOM_UP
    model = {
        prefix + name.removeprefix(BOTTOM_UP): value
        for name, value in arrays(teacher_state(tmp_path)).items()
        if name.startswith(BOTTOM_UP)
    }
    content = {"model": model, "__author__": "torchvision", "matching_heuristics": heuristics}
    cfg = build(tmp_path, dump(tmp_path / "R-50.pkl", content))
    with pytest.raises(ValueError, match=MISSING):
        TeacherLoader.from_config(cfg)()


def test_a_student_of_other_widths_does_not_take_an_imagenet_file(tmp_path):
    tiny.save_teacher(tmp_path)
    model = build_model(build(tmp_path))
    state = arrays(teacher_state(tmp_path))  # of another width: no shape fits
    names = {
        k.removeprefix(BOTTOM_UP): v
        for k, v in state.items()
        if k.startswith(BOTTOM_UP) and not k.endswith("num_batches_tracked")
    }
    content = {"model": names, "__author__": "torchvision", "matching_heuristics": True}
    path = dump(tmp_path / "R-50.pkl", content)
    with pytest.raises(ValueError, match=r"MODEL.WEIGHTS must hold weights of the student"):
        StudentCheckpointer(model, key="MODEL.WEIGHTS").resume_or_load(str(path), resume=False)
